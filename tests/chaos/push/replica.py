"""A replica of push alone: the real store, feed, notifier and drivers, and a viewer that the client names.

`python -m tests.chaos.push.replica DATABASE_URL RING_EVENTS` forks one for every line `PORT raw|asgi` that it reads,
because starting Python takes longer than the faults are apart. Each says its port and pid when it serves.
"""

import asyncio
import os
import signal
import socket
import sys

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from notifier import RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket, sse_response
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from services.changes.log import ChangeFeed
from services.clock import utc_now
from services.storage.sql import SqlStore

# So few that a client which was away for some seconds is served from the store.
RING_EVENTS = 128


def viewer(query: QueryParams) -> Viewer:
    return Viewer(frozenset(query["owners"].split(",")))


async def main(url: str, port: int, ring: int, *, is_raw: bool) -> None:
    store = await SqlStore.open(url)
    snapshot = await store.snapshot()
    notifier = UnifiedNotifier(
        store, snapshot.position, utc_now=utc_now, events_max=ring, heartbeat_s=0.5, subscribers_max=10_000
    )
    notifier.remember(await store.tail(max(0, snapshot.position.seq - ring), ring))
    feed = ChangeFeed(store, snapshot.position, interval_s=0.05)
    feed.follow(notifier)
    feed.start()
    rpc = RpcRegistry(lambda _: RpcError(-32603, "Internal error"))

    async def ws(websocket: WebSocket) -> None:
        await serve_websocket(websocket, notifier, rpc, viewer(websocket.query_params), "chaos")

    async def events(request: Request) -> Response:
        query = request.query_params
        since = request.headers.get("last-event-id") or query.get("since")
        return sse_response(notifier, viewer(query), query["topics"].split(","), since)

    app = Starlette(routes=[WebSocketRoute("/ws", ws), Route("/events", events)])
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        timeout_graceful_shutdown=2,
        http=RawHttpProtocol if is_raw else "httptools",
        ws=RawWebSocketProtocol if is_raw else "websockets-sansio",
    )
    server = uvicorn.Server(config)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(server._serve([listener]))  # without uvicorn's own signals
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    sys.stdout.write(f"{listener.getsockname()[1]} {os.getpid()}\n")
    sys.stdout.flush()
    await ending.wait()
    await notifier.close()
    server.should_exit = True
    await serving
    await feed.close()
    await store.close()


def nurse(url: str, ring: int) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the ports
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    for line in sys.stdin:
        port, kind = line.split()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            uvloop.run(main(url, int(port), ring, is_raw=kind == "raw"))
            os._exit(0)


if __name__ == "__main__":
    nurse(sys.argv[1], int(sys.argv[2]))
