"""Clients that hop between replicas and between WebSocket and SSE, and keep what they got."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
import websockets
from websockets.asyncio.client import connect

from notifier import Viewer
from services.models import Change

SILENCE_S = 5.0


class _Message(msgspec.Struct):
    method: str = ""
    id: object = None
    params: dict[str, object] = {}
    result: dict[str, object] = {}
    error: object = None


class Client:
    """Goes on from the id it saw last, wherever it connects next. `received` are seqs in the order they came."""

    def __init__(self, rng: random.Random, owners: frozenset[str], topics: frozenset[str], start: str) -> None:
        self.owners = owners
        self.topics = topics
        self.cursor = start
        self.received: list[int] = []
        self.resets: list[str] = []
        self.connected = {"ws": 0, "sse": 0}
        self.ended_politely = 0
        self._rng = rng

    def wanted(self, rows: Sequence[Change]) -> list[int]:
        viewer = Viewer(self.owners)
        return [row.seq for row in rows if row.topic in self.topics and viewer.sees(row)]

    async def run(self, ports: Sequence[int], is_over: asyncio.Event, last: "asyncio.Future[Sequence[Change]]") -> None:
        """Until everything was received: then the publisher has stopped, and `last` has all rows."""
        while not (is_over.is_set() and self._has_all(last.result())):
            port = self._rng.choice(ports)
            transport = self._rng.choice(["ws", "sse"])
            stream = self._websocket(port) if transport == "ws" else self._sse(port)
            try:
                async with asyncio.timeout(self._rng.uniform(0.1, 2.5)), aclosing(stream):
                    async for _ in stream:
                        self.connected[transport] += 1
            except (TimeoutError, OSError, EOFError, websockets.WebSocketException):
                await asyncio.sleep(self._rng.uniform(0, 0.1))

    def _has_all(self, rows: Sequence[Change]) -> bool:
        wanted = self.wanted(rows)
        return not wanted or (bool(self.received) and self.received[-1] >= wanted[-1])

    def _take(self, event: dict[str, object]) -> None:
        self.cursor = str(event["id"])
        self.received.append(int(self.cursor.split("-")[1]))

    def _path(self) -> str:
        return f"owners={','.join(sorted(self.owners))}&topics={','.join(sorted(self.topics))}"

    async def _websocket(self, port: int) -> AsyncGenerator[None]:
        """Yields once it is subscribed."""
        async with connect(
            f"ws://127.0.0.1:{port}/ws?{self._path()}", ping_interval=None, compression=None, close_timeout=0.2
        ) as socket:
            params = {"topics": sorted(self.topics), "since": self.cursor}
            await socket.send(msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params}))
            async for text in socket:
                message = msgspec.json.decode(text, type=_Message)
                if message.id == 1:
                    assert message.error is None, message.error
                    yield
                elif message.method == "event":
                    self._take(message.params)
                elif message.method == "reset":
                    self.resets.append(str(message.params))
                elif message.method == "bye":
                    self.ended_politely += 1
                elif message.method == "ping":
                    await socket.send(msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "result": {}}))

    async def _sse(self, port: int) -> AsyncGenerator[None]:
        """Yields once the stream says hello."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /events?{self._path()} HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: {self.cursor}\r\n\r\n"
        try:
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            name = data = ""
            while line := (await self._line(reader)):
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value.strip()
                elif field == "data":
                    data = value
                elif field == "end":
                    body = msgspec.json.decode(data, type=dict[str, object]) if data else {}
                    if name == "hello":
                        yield
                    elif name == "reset":
                        self.resets.append(data)
                    elif name == "bye":
                        self.ended_politely += 1
                        return
                    elif "id" in body:
                        self._take(body)
                    name = data = ""
        finally:
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> str:
        """The next line of the body; `end: ` at the end of an event. Chunks hold whole events."""
        if not hasattr(reader, "lines"):
            reader.lines = []  # type: ignore[attr-defined]
        lines: list[str] = reader.lines  # type: ignore[attr-defined]
        if not lines:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            if size == 0:
                raise EOFError
            chunk = (await reader.readexactly(size + 2))[:-2].decode()
            lines += [line or "end: " for line in chunk.removesuffix("\n").split("\n")]
        return lines.pop(0)
