"""The peers of the push benchmarks, each as its own users would write it:
`python -m tests.bench.push.peers NAME CLIENTS EVENTS PER_S`."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import uvicorn
import uvloop
import websockets
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from sse_starlette.sse import EventSourceResponse
from starlette.types import ASGIApp
from websockets.asyncio.server import ServerConnection, serve

from tests.bench.push.pace import DATA, allow_many_files, paced
from tests.support.notifier_log import STAMP

TEXT = msgspec.json.encode({
    "jsonrpc": "2.0",
    "method": "event",
    "params": {
        "id": "621cc924-2-3106cefd", "prev": "621cc924-1-d235e4b0", "topic": "skills", "kind": "skill.published",
        "at": STAMP, "data": DATA,
    },
}).decode()  # fmt: skip


async def serving(app: ASGIApp) -> tuple[uvicorn.Server, asyncio.Task[None], int]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, ws_per_message_deflate=False, ws_ping_interval=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    return server, task, listener.getsockname()[1]


async def fastapi_loop(clients: int, events: int, per_s: float) -> None:
    app = FastAPI()
    connected: list[WebSocket] = []

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        connected.append(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            connected.remove(websocket)

    async def publish(count: int) -> None:
        for _ in range(count):
            for websocket in connected:
                await websocket.send_text(TEXT)

    _, _, port = await serving(app)
    await paced(port, publish, clients, "websocket", events, per_s)


async def sse_starlette(clients: int, events: int, per_s: float) -> None:
    app = FastAPI()
    queues: list[asyncio.Queue[str]] = []

    async def stream(queue: asyncio.Queue[str]) -> AsyncIterator[dict[str, str]]:
        while True:
            yield {"id": "621cc924-2-3106cefd", "data": await queue.get()}

    @app.get("/events")
    async def events_() -> EventSourceResponse:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.append(queue)
        return EventSourceResponse(stream(queue))

    async def publish(count: int) -> None:
        for _ in range(count):
            for queue in queues:
                queue.put_nowait(TEXT)

    _, _, port = await serving(app)
    await paced(port, publish, clients, "sse", events, per_s)


async def broadcast(clients: int, events: int, per_s: float) -> None:
    connected: set[ServerConnection] = set()

    async def handler(connection: ServerConnection) -> None:
        connected.add(connection)
        await connection.wait_closed()

    async def publish(count: int) -> None:
        for _ in range(count):
            websockets.broadcast(connected, TEXT)

    async with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=2048) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await paced(port, publish, clients, "websocket", events, per_s)


async def floor(clients: int, events: int, per_s: float, *, is_joined: bool = False) -> None:
    """No server at all: a loop of `write` calls with a frame made before. `is_joined`: all events of a turn in one."""
    body = TEXT.encode()
    frame = b"\x81\x7e" + len(body).to_bytes(2, "big") + body
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    descriptors: list[int] = []
    kept: list[socket.socket] = []
    loop = asyncio.get_running_loop()

    async def accept() -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            await loop.sock_recv(connection, 4096)
            await loop.sock_sendall(connection, b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            kept.append(connection)
            descriptors.append(connection.fileno())

    async def publish(count: int) -> None:
        payloads = [frame * count] if is_joined else [frame] * count
        for payload in payloads:
            for descriptor in descriptors:
                os.write(descriptor, payload)

    listener.setblocking(False)
    accepting = asyncio.create_task(accept())
    await paced(listener.getsockname()[1], publish, clients, "websocket", events, per_s)
    accepting.cancel()


PEERS: dict[str, Callable[[int, int, float], Coroutine[Any, Any, None]]] = {
    "fastapi": fastapi_loop,
    "sse-starlette": sse_starlette,
    "broadcast": broadcast,
    "floor": floor,
    "joined-floor": partial(floor, is_joined=True),
}

if __name__ == "__main__":
    allow_many_files()
    uvloop.run(PEERS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    os._exit(0)  # a thousand open connections are not to be closed one by one
