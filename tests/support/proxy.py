"""A proxy before a unix socket, whose connections can be made to lead nowhere without being closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class HalfOpenProxy:
    """`silence` keeps every byte of the connections of now, both ways; later ones are well."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._silent: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[None]] = set()

    def silence(self) -> int:
        """Answers how many connections it was."""
        self._silent |= self._open
        return len(self._open)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(task, reader, there_writer))
                group.create_task(self._copy(task, there_reader, writer))
        finally:
            self._open.discard(task)
            writer.close()
            there_writer.close()

    async def _copy(self, of: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if of not in self._silent:
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)


@asynccontextmanager
async def half_open_proxy(target: Path, at: Path) -> AsyncIterator[HalfOpenProxy]:
    proxy = HalfOpenProxy(target)
    server = await asyncio.start_unix_server(proxy.serve, at)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
