"""A proxy before the emulator that throttles, fails, loses answers or is silent, as `decide` says for each request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

Fault = Literal["", "throttle", "error", "lose", "cut", "silence"]
"""`lose` carries the request out and drops the answer; `cut` ends the connection in the middle of it."""

_THROTTLED = {
    "dynamodb": (
        400,
        b'{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "slow"}',
    ),
    "s3": (503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"),
}
_FAILED = {
    "dynamodb": (500, b'{"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "oops"}'),
    "s3": (500, b"<Error><Code>InternalError</Code><Message>oops</Message></Error>"),
}


class FaultyAws:
    """`decide` is asked with the operation: DynamoDB's own name for it, or S3's method (`PUT`, `GET`, ...)."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.decide: Callable[[str], Fault] = lambda _: ""
        self.asked: list[str] = []

    def always(self, fault: Fault, *operations: str) -> None:
        """From now on for these operations, or for all when none is named."""
        self.decide = lambda operation: fault if not operations or operation in operations else ""

    def nth(self, n: int, fault: Fault, *, lasting: bool) -> None:
        """For the n-th request from now on, and for all after it when `lasting`."""
        seen = 0

        def decide(_operation: str) -> Fault:
            nonlocal seen
            seen += 1
            return fault if seen == n or (lasting and seen > n) else ""

        self.decide = decide

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to end."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = "\r\n".join(line for line in lines if not line.lower().startswith("expect:")).encode("latin-1")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        target = headers.get("x-amz-target", "").rpartition(".")[2]
        service = "dynamodb" if target else "s3"
        operation = target or lines[0].partition(" ")[0]
        self.asked.append(operation)
        fault = self.decide(operation)
        if fault in ("throttle", "error"):
            status, text = (_THROTTLED if fault == "throttle" else _FAILED)[service]
            writer.write(f"HTTP/1.1 {status} Trouble\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
            await writer.drain()
            return True
        if fault == "silence":
            await asyncio.Event().wait()
        answer = await self._forwarded(head, body)
        if fault == "lose":
            return False
        writer.write(answer[: len(answer) // 2] if fault == "cut" else answer)
        await writer.drain()
        return fault != "cut"

    async def _forwarded(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            first, _, rest = head.partition(b"\r\n")
            writer.write(first + b"\r\nConnection: close\r\n" + rest + body)
            answer = await reader.read()
        finally:
            writer.close()
        return answer.replace(b"Connection: close\r\n", b"", 1)


@asynccontextmanager
async def faulty(port: int) -> AsyncIterator[FaultyAws]:
    proxy = FaultyAws(port)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await proxy.serve(reader, writer)
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        if connections:
            await asyncio.wait(list(connections))
        await server.wait_closed()
