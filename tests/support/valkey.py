"""A Valkey server of a test's own, that can be killed, frozen and started again."""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cache.valkey import find_server


class ValkeyServer:
    """Listens on a unix socket in `folder`; ended by `kill`, which also ends a frozen one."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "v.sock"
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"unix://{self._socket}"

    async def start(self) -> None:
        server = find_server()
        assert server is not None
        self._socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            server, "--port", "0", "--unixsocket", self._socket, "--save", "", "--dir", self._socket.parent,
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(5):
            while not await self._answers():  # noqa: ASYNC110  # the event is another process's
                await asyncio.sleep(0.01)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


@asynccontextmanager
async def valkey_server() -> AsyncIterator[ValkeyServer]:
    """One that runs, and is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:  # short: a socket's path is limited
        server = ValkeyServer(Path(folder))
        await server.start()
        try:
            yield server
        finally:
            await server.kill()
