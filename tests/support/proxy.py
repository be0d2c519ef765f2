"""Proxies: one that takes turns between ports, and one before a unix socket that can be made to lead nowhere."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_CLOSE_S = 5.0


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


@asynccontextmanager
async def taking_turns(ports: list[int]) -> AsyncIterator[str]:
    """The address of a proxy whose connections go to each port in turn, past the ones that refuse."""
    turns = itertools.cycle(ports)
    open_now: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def open_next() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in ports:
            try:
                return await asyncio.open_connection("127.0.0.1", next(turns))
            except OSError:
                continue
        raise ConnectionError("no replica answers")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now[task] = writer
        try:
            up_reader, up_writer = await open_next()
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(reader, up_writer))
                group.create_task(copy(up_reader, writer))
        except ConnectionError:
            writer.close()
        finally:
            del open_now[task]

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in open_now.values():
            writer.close()
        if open_now:
            await asyncio.wait(list(open_now), timeout=_CLOSE_S)
