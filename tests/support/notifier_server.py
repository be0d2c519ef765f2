"""A real uvicorn server, in this process and on a free port, with the notifier's two drivers mounted."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect

from notifier import RpcCall, RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket, sse_response
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from tests.support.notifier_log import ListLog, notifier_of


@dataclass
class Pushing:
    """What a test needs of the running server."""

    log: ListLog
    notifier: UnifiedNotifier
    rpc: RpcRegistry
    port: int
    server: uvicorn.Server

    def connect(self) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/ws", ping_interval=None, compression=None)


def _nothing_given_away(_: Exception) -> RpcError:
    return RpcError(-32603, "Internal error")


@asynccontextmanager
async def pushing(
    *,
    viewer: Viewer = Viewer(None),  # noqa: B008  # immutable
    heartbeat_s: float = 20.0,
    stall_s: float = 30.0,
    subscribers_max: int = 100,
    raw: bool = True,
    reads_first: bool = False,
) -> AsyncIterator[Pushing]:
    """`raw` False: the server's own protocol classes, so that streams go through ASGI. `reads_first`: a WebSocket is
    handed over after its first message, which is sent back."""
    log = ListLog()
    notifier = notifier_of(
        log, events_max=64, subscribers_max=subscribers_max, heartbeat_s=heartbeat_s, stall_s=stall_s
    )
    rpc = RpcRegistry(_nothing_given_away)

    @rpc.command("echo")
    async def echo(call: RpcCall) -> bytes:
        return bytes(call.params)

    async def ws(websocket: WebSocket) -> None:
        if reads_first:
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())
        await serve_websocket(websocket, notifier, rpc, viewer, "tester", message_bytes_max=4096)

    async def events(request: Request) -> Response:
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        topics = request.query_params["topics"].split(",")
        return sse_response(notifier, viewer, topics, since)

    app = Starlette(routes=[WebSocketRoute("/ws", ws), Route("/events", events)])
    # The buffers of accepted sockets are those of the listener; small ones let a test fill them.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        http=RawHttpProtocol if raw else "auto",
        ws=RawWebSocketProtocol if raw else "auto",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Pushing(log, notifier, rpc, listener.getsockname()[1], server)
    finally:
        await notifier.close(timeout_s=1.0)
        server.should_exit = True
        await serving


@asynccontextmanager
async def upgraded(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket after its handshake, without anything that would speak its protocol."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    try:
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.close()


class RpcClient:
    """Speaks JSON-RPC over a socket; what is not a reply waits in `events`, in order."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._number = 0
        self.events: list[dict[str, object]] = []

    async def call(self, method: str, **params: object) -> dict[str, object]:
        self._number += 1
        await self.send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        while (message := await self.receive()).get("id") != self._number:
            self.events.append(message)
        return message

    async def send(self, message: dict[str, object]) -> None:
        await self.socket.send(msgspec.json.encode(message).decode())

    async def receive(self) -> dict[str, object]:
        async with asyncio.timeout(5):
            return msgspec.json.decode(await self.socket.recv(), type=dict[str, object])

    async def next_event(self) -> dict[str, object]:
        """The next notification: its method, and its params. Whoever asks for it is alive, and answers pings."""
        while (message := self.events.pop(0) if self.events else await self.receive()).get("method") == "ping":
            await self.send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        assert "id" not in message
        return message


class SseEvent(msgspec.Struct):
    event: str
    id: str
    data: str
    retry: str


class SseStream:
    """Reads server-sent events off a response; comments and id-only heartbeats come as events without data."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> SseEvent:
        """Raises StopAsyncIteration at a clean end, an httpx2 error at a cut one."""
        event = SseEvent("", "", "", "")
        async with asyncio.timeout(5):
            while line := await anext(self._lines):
                name, _, value = line.partition(":")
                if name:
                    setattr(event, name, value.strip())
        return event

    async def next_data(self) -> dict[str, object]:
        while not (event := await self.next()).data:
            pass
        return msgspec.json.decode(event.data, type=dict[str, object])


@asynccontextmanager
async def sse(port: int, topics: str, since: str = "") -> AsyncIterator[SseStream]:
    headers = {"last-event-id": since} if since else {}
    async with (
        httpx2.AsyncClient(trust_env=False) as client,
        client.stream(
            "GET", f"http://127.0.0.1:{port}/events", params={"topics": topics}, headers=headers, timeout=5
        ) as response,
    ):
        yield SseStream(response)
