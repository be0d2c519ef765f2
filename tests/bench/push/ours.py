"""This notifier in the push benchmarks: `python -m tests.bench.push.ours KIND CLIENTS EVENTS PER_S`.
KIND is ws or sse, or asgi-ws or asgi-sse for the server's own protocol classes."""

import asyncio
import os
import socket
import sys

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from notifier import RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket, sse_response
from notifier.probe import probe
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from tests.bench.push.pace import DATA, allow_many_files, paced
from tests.support.notifier_log import STAMP, ListLog

EVERYONE = Viewer(None)


async def main(transport: str, clients: int, events: int, per_s: float) -> None:
    log = ListLog()
    notifier = UnifiedNotifier(log, log.position, utc_now=lambda: STAMP, heartbeat_s=3600)
    rpc = RpcRegistry(lambda _: RpcError(-32603, "Internal error"))

    async def ws(websocket: WebSocket) -> None:
        await serve_websocket(websocket, notifier, rpc, EVERYONE, "bench")

    async def sse(_: Request) -> Response:
        return sse_response(notifier, EVERYONE, ["skills"], None)

    async def publish(count: int) -> None:
        notifier.apply([log.append(data=DATA) for _ in range(count)])

    app = Starlette(routes=[WebSocketRoute("/ws", ws), Route("/events", sse)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    is_raw = transport in ("ws", "sse")
    assert not is_raw or await probe()
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        http=RawHttpProtocol if is_raw else "httptools",
        ws=RawWebSocketProtocol if is_raw else "websockets-sansio",
    )
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    kind = "skillwire-ws" if transport.endswith("ws") else "sse"
    await paced(listener.getsockname()[1], publish, clients, kind, events, per_s)
    serving.cancel()


if __name__ == "__main__":
    allow_many_files()
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    os._exit(0)
