"""Round trips over one connection: `python -m tests.bench.push.rpc NAME CALLS IN_FLIGHT`, NAME being skillwire,
skillwire-async or fastapi."""

import asyncio
import json
import os
import socket
import sys
import time

import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp

from notifier import RpcCall, RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from tests.bench.push.load import connect, masked
from tests.support.notifier_log import STAMP, ListLog

PARAMS = {"owner": "main", "name": "hello-world"}


def skillwire() -> ASGIApp:
    log = ListLog()
    notifier = UnifiedNotifier(log, log.position, utc_now=lambda: STAMP, heartbeat_s=3600)
    rpc = RpcRegistry(lambda _: RpcError(-32603, "Internal error"))

    @rpc.command("echo")
    def echo(call: RpcCall) -> bytes:
        return bytes(call.params)

    @rpc.command("echo_later")
    async def echo_later(call: RpcCall) -> bytes:
        return bytes(call.params)

    async def ws(websocket: WebSocket) -> None:
        await serve_websocket(websocket, notifier, rpc, Viewer(None), "bench")

    return Starlette(routes=[WebSocketRoute("/ws", ws)])


def fastapi() -> ASGIApp:
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            call = msgspec.json.decode(await websocket.receive_text())
            answer = {"jsonrpc": "2.0", "id": call["id"], "result": call["params"]}
            await websocket.send_text(msgspec.json.encode(answer).decode())

    return app


def call(port: int, calls: int, method: str, in_flight: int) -> float:
    """Seconds for so many round trips over one connection, so many of them at a time."""
    client = connect(port, "websocket")
    client.setblocking(True)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = masked(msgspec.json.encode({"jsonrpc": "2.0", "id": 7, "method": method, "params": PARAMS}))
    started_s = time.perf_counter()
    for _ in range(calls // in_flight):
        client.sendall(message * in_flight)
        answers = 0
        while answers < in_flight:
            answers += client.recv(65536).count(b'"jsonrpc"')
    return time.perf_counter() - started_s


async def main(name: str, calls: int, in_flight: int) -> None:
    is_ours = name != "fastapi"
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        skillwire() if is_ours else fastapi(),
        lifespan="off",
        log_config=None,
        access_log=False,
        ws_per_message_deflate=False,
        http=RawHttpProtocol if is_ours else "httptools",
        ws=RawWebSocketProtocol if is_ours else "websockets-sansio",
    )
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    method = "echo_later" if name == "skillwire-async" else "echo"
    port = str(listener.getsockname()[1])
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.push.rpc", "call", port, str(calls), method, str(in_flight),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert client.stdout is not None
    await client.stdout.readline()
    cpu_s = time.process_time()
    took_s = float(await client.stdout.readline())
    cpu_s = time.process_time() - cpu_s
    await client.wait()
    sys.stdout.write(json.dumps({"per_s": calls / took_s, "us": cpu_s / calls * 1e6}) + "\n")
    sys.stdout.flush()
    serving.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "call":
        port, calls, method, in_flight = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
        call(port, 200, method, in_flight)
        sys.stdout.write("warm\n")
        sys.stdout.flush()
        sys.stdout.write(f"{call(port, calls, method, in_flight)}\n")
    else:
        uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
        os._exit(0)
