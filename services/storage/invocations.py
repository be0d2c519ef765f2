"""The invocation log: who called what, which version and digest ran, how it ended.

One task writes batches: the first of a burst at once, then as many as come while `GATHER_S` goes by, because a
write of one costs as much as that of a hundred. A record that was accepted is written: room is reserved before the call
runs, a full log makes callers wait for `WAIT_S` and then refuses them, and `close` flushes.
"""

import asyncio
import random
import re
import time
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import msgspec
import structlog

from services import metrics
from services.caller import Caller
from services.clock import monotonic_s, utc_now
from services.failures import ServiceError, Unavailable
from services.models import Invocation, Skill, Version
from services.ports import MetadataStore

QUEUE_MAX = 10_000
BATCH_MAX = 500
WAIT_S = 0.2
GATHER_S = 0.05
ARGUMENTS_BYTES_MAX = 1024
_RETRY_S = 0.5
_SECRET = re.compile(r"secret|token|passw|api_?key|authorization|credential|private", re.IGNORECASE)

log = structlog.get_logger(__name__)


class InvocationLog:
    """Start it with `start`, end it with `close`, which returns once everything is written."""

    def __init__(self, store: MetadataStore, *, queue_max: int = QUEUE_MAX, gather_s: float = GATHER_S) -> None:
        self._store = store
        self._gather_s = gather_s
        self._queue: asyncio.Queue[Invocation] = asyncio.Queue()
        self._room = asyncio.Semaphore(queue_max)
        self._unwritten = 0
        self._all_written = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="invocation-log")

    async def close(self) -> None:
        """Refuses further calls, waits until those under way have ended and are written; the caller
        bounds how long that may take, and what is not written when it is cancelled is lost."""
        self._closing.set()
        if self._task is None:
            return
        try:
            while self._unwritten:
                self._all_written.clear()
                await self._all_written.wait()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._unwritten:
                log.error("invocations are lost: the database did not take them in time", lost=self._unwritten)

    def logged(
        self, caller: Caller, target: str, skill: Skill, version: Version, arguments: Any
    ) -> AbstractAsyncContextManager[None]:
        """Logs the block as one invocation, however it ends. Raises `Unavailable` before the block
        when there is no room within `WAIT_S`: a call that could not be logged must not run."""
        # Now: the tool is given the same object and may change it.
        return _Logged(self, caller, target, skill, version, redacted(arguments))

    def add(self, invocation: Invocation) -> None:
        """What was admitted."""
        self._queue.put_nowait(invocation)

    async def admit(self) -> None:
        """Reserves room for one invocation, which must then be added."""
        if self._closing.is_set():
            raise Unavailable("the service is shutting down")
        if self._room.locked():
            await self._wait_for_room()
        else:
            await self._room.acquire()  # at once; the timer of a wait would cost more than all the rest
        self._unwritten += 1

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._room.acquire()
        except TimeoutError as error:
            metrics.invocations_refused.inc()
            raise Unavailable("the invocation log is full; try again", code="invocation_log_full") from error

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            started_s = monotonic_s()
            while len(batch) < BATCH_MAX and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            for _ in batch:
                self._room.release()
            self._unwritten -= len(batch)
            if not self._unwritten:
                self._all_written.set()
            if self._queue.qsize() < BATCH_MAX:
                with suppress(TimeoutError):
                    async with asyncio.timeout(started_s + self._gather_s - monotonic_s()):
                        await self._closing.wait()

    async def _write(self, batch: list[Invocation]) -> None:
        while True:
            try:
                await self._store.record(batch)
            except Unavailable as error:
                log.warning("invocations wait for the database", waiting=len(batch), error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                metrics.invocations_logged.inc(len(batch))
                return


class _Logged(AbstractAsyncContextManager[None]):
    """One call. Not a generator: that would cost as much as all that is done here."""

    __slots__ = ("_arguments", "_caller", "_log", "_skill", "_started_s", "_target", "_version")

    def __init__(
        self, log: InvocationLog, caller: Caller, target: str, skill: Skill, version: Version, arguments: str
    ) -> None:
        self._log = log
        self._caller = caller
        self._target = target
        self._skill = skill
        self._version = version
        self._arguments = arguments
        self._started_s = 0.0

    async def __aenter__(self) -> None:
        await self._log.admit()
        self._started_s = monotonic_s()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            code = ""
        elif isinstance(error, ServiceError):
            code = error.code
        else:
            code = "internal" if isinstance(error, Exception) else "cancelled"
        self._log.add(
            Invocation(
                id=_new_id(),
                at=utc_now(),
                caller=self._caller.id,
                session=self._caller.session,
                transport=self._caller.transport,
                target=self._target,
                skill_id=self._skill.id,
                version=self._version.version,
                digest=self._version.digest,
                ok=not code,
                code=code,
                duration_ms=round((monotonic_s() - self._started_s) * 1000, 3),
                arguments=self._arguments,
            )
        )


def _new_id() -> str:
    """Sorts by time: newest last. It names a call, and opens nothing."""
    return f"inv-{time.time_ns():016x}-{random.getrandbits(32):08x}"


def redacted(arguments: Any) -> str:
    """JSON of the arguments without secrets, at most `ARGUMENTS_BYTES_MAX` bytes."""
    try:
        text = msgspec.json.encode(_without_secrets(arguments))
    except (ValueError, TypeError, RecursionError) as error:
        # Python reads JSON that cannot be written as such: half a surrogate pair, a thousand levels.
        return f"[not shown: {type(error).__name__}]"
    if len(text) > ARGUMENTS_BYTES_MAX:
        return text[: ARGUMENTS_BYTES_MAX - 3].decode(errors="ignore") + "..."
    return text.decode()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "[redacted]" if _SECRET.search(str(key)) else _without_secrets(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
