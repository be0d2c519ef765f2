"""One sandboxed worker process and the socket to it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, cast

from services.clock import monotonic_s
from services.execution.dialogue import NOTICE
from services.frames import FrameDecoder, FrameTooLarge, pack

_STDERR_BYTES_MAX = 4096

EndReason = Literal[
    "idle",
    "evicted",
    "recycled",
    "timeout",
    "cancelled",
    "crashed",
    "memory",
    "protocol",
    "load_failed",
    "not_started",
    "closed",
]


class WorkerKey(NamedTuple):
    """Calls with equal keys may share a worker. `script` is empty for one that loads nothing."""

    digest: str
    script: str
    network: bool
    memory_mb: int


class WorkerEnded(Exception):
    """The process is gone, or was told to go, before it answered."""


class _Watch(asyncio.SubprocessProtocol):
    """Tells the worker of its process's life."""

    def __init__(self, worker: "WorkerProcess") -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # a cast: uvloop's transports do not derive from asyncio's
        self._worker.process_started(cast(asyncio.SubprocessTransport, transport))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._worker.process_lost()


class WorkerProcess(asyncio.Protocol):
    """A worker from the moment its place in the pool is taken; `on_start` is called when it has a
    process, `on_end` once after `start`, when the process is reaped and its socket closed, or when
    none could be started. One frame is under way at a time.

    `end_reason` is None until somebody decides that it ends; a process that ends by itself has
    crashed. `said` is what bubblewrap or the interpreter wrote if the start failed. `calls` counts
    answers, `idle_since` is on the pool's clock.
    """

    def __init__(self, key: WorkerKey, on_start: Callable[[], None], on_end: Callable[["WorkerProcess"], None]) -> None:
        self.key = key
        self.end_reason: EndReason | None = None
        self.is_ready = False
        self.calls = 0
        self.pid = 0
        self.started_at = monotonic_s()
        self.idle_since = 0.0
        self.said = ""
        self._on_start = on_start
        self._on_end = on_end
        self._process: asyncio.SubprocessTransport | None = None
        self._channel: asyncio.Transport | None = None
        self._stderr = -1
        self._failure: OSError | None = None
        self._spawning: asyncio.Task[None] | None = None
        self._is_spawned = False
        self._is_settled = False
        self._decoder = FrameDecoder()
        self._pending: asyncio.Future[bytes] | None = None
        self._hear: Callable[[bytes], bool] | None = None

    @property
    def has_process(self) -> bool:
        """True from the start until the process is reaped and the socket closed."""
        return self._spawning is not None and not self._is_settled

    async def start(self, argv: list[str], script: str, memory_mb: int) -> bytes:
        """Starts the process and answers its ready frame.

        `argv` runs the worker and is followed by its own arguments. Raises `WorkerEnded`, or
        `OSError` when nothing could be started. When cancelled, the caller must `kill`.
        """
        self._stderr = os.memfd_create("stderr")
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            os.close(self._stderr)
            raise
        ready = self._next_frame()
        # A task of its own, which is never cancelled: neither asyncio (CPython 3.11, a pipe that is
        # being connected) nor uvloop (no connection_lost) tells the end of a process whose start was.
        # It ends by itself, and `on_end`, which the pool waits for, comes after it.
        self._spawning = asyncio.get_running_loop().create_task(
            self._spawn([*argv, str(theirs.fileno()), str(memory_mb), script], ours, theirs)
        )
        try:
            return await ready
        except WorkerEnded:
            if self._failure is not None:
                raise self._failure from None
            raise

    async def _spawn(self, argv: list[str], ours: socket.socket, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(
                lambda: _Watch(self),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=self._stderr,
                env={},  # bubblewrap's own environment is readable inside, at /proc/1/environ
                pass_fds=(theirs.fileno(),),  # and so would be every other inherited descriptor
                start_new_session=True,
            )
            theirs.close()
            if self._process is not None:
                await loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            self._failure = error
            self.kill("not_started")
        finally:
            theirs.close()
            self._is_spawned = True
            if self._channel is None:
                ours.close()
            elif self._process is None:
                self._channel.abort()
            self._settle()

    def ask(self, payload: bytes, hear: Callable[[bytes], bool] | None = None) -> "asyncio.Future[bytes]":
        """The frame that answers this one. Fails with `WorkerEnded`; when the caller stops
        waiting it must `kill`, since the answer would be taken for the next call's.

        `hear` is given what the tool says before that, and answers whether that may be said."""
        answer = self._next_frame()
        self._hear = hear
        if self._channel is not None and not answer.done():
            self._channel.write(pack(payload))
        return answer

    def kill(self, reason: EndReason) -> None:
        """Ends the process and all in its sandbox at once; the first reason stays."""
        self._signal(reason, signal.SIGKILL)

    def terminate(self, reason: EndReason) -> None:
        self._signal(reason, signal.SIGTERM)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            payloads = self._decoder.feed(data)
        except FrameTooLarge:
            self.kill("protocol")
            return
        for payload in payloads:
            waiting = self._pending is not None and not self._pending.done()
            if waiting and self._hear is not None and payload.startswith(NOTICE) and self._hear(payload):
                continue
            if self._pending is None or self._pending.done():
                self.kill("protocol")  # a frame that nobody asked for: the tool wrote to our socket
                return
            self._pending.set_result(payload)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._channel = None
        self.kill("crashed")
        self._settle()

    def process_started(self, transport: asyncio.SubprocessTransport) -> None:
        self._process = transport
        self.pid = transport.get_pid()
        self._on_start()
        if self.end_reason is not None:
            self.kill(self.end_reason)

    def process_lost(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
        if self.end_reason is None:
            self.end_reason = "crashed"
        # Not while it is being opened: uvloop would lose the socket's own object. `_spawn` does it then.
        if self._channel is not None and self._is_spawned:
            self._channel.abort()
        self._settle()

    def _next_frame(self) -> "asyncio.Future[bytes]":
        self._pending = asyncio.get_running_loop().create_future()
        if self.end_reason is not None:
            self._fail_pending()
        return self._pending

    def _signal(self, reason: EndReason, number: signal.Signals) -> None:
        if self.end_reason is None:
            self.end_reason = reason
        if self._process is not None and self._process.get_returncode() is None:
            # The group is bubblewrap's outer process and the first one inside, whose end is the end of
            # every process in its namespace.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
        self._fail_pending()

    def _fail_pending(self) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(WorkerEnded(self.end_reason))

    def _settle(self) -> None:
        if self._is_settled or not self._is_spawned or self._process is not None or self._channel is not None:
            return
        self._is_settled = True
        if not self.is_ready:
            self.said = os.pread(self._stderr, _STDERR_BYTES_MAX, 0).decode("utf-8", "replace").strip()
        os.close(self._stderr)
        self._fail_pending()
        self._on_end(self)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and all below it; what has ended meanwhile counts nothing."""
    total = 0
    waiting = [pid]
    while waiting:
        folder = Path("/proc", str(waiting.pop()))
        with contextlib.suppress(OSError):
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            waiting += [int(child) for child in (folder / "task" / folder.name / "children").read_text().split()]
    return total
