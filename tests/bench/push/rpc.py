"""Round trips over one connection: `python -m tests.bench.push.rpc NAME [FILE]` serves, and prints its port.

NAME is skillwire or fastapi. FastAPI does what whoever writes such a server does: it decodes the JSON, finds the
command, awaits it and encodes the answer. Its `get_skill` validates the params as ours does and answers FILE, which
it has at hand; ours is a running service with its cache.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from gateway.operations.table import SkillParams, parse
from notifier import RpcCall, RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from tests.bench.push.load import connect, masked
from tests.support.load import apart_from
from tests.support.notifier_log import STAMP, ListLog

PARAMS = {"owner": "main", "name": "hello-world"}
_MARK = b'"jsonrpc"'


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


def fastapi(skill: bytes) -> ASGIApp:
    app = FastAPI()

    async def echo(params: dict[str, Any]) -> object:
        return params

    async def get_skill(params: dict[str, Any]) -> object:
        parse(SkillParams, params)
        return msgspec.Raw(skill)

    commands = {"echo": echo, "get_skill": get_skill}

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                call = msgspec.json.decode(await websocket.receive_text())
                result = await commands[call["method"]](call["params"])
                answer = {"jsonrpc": "2.0", "id": call["id"], "result": result}
                await websocket.send_text(msgspec.json.encode(answer).decode())
        except WebSocketDisconnect:
            pass

    return app


class Cost(NamedTuple):
    """Of one call: the server's CPU and the time by the clock."""

    cpu_us: float
    clock_us: float


class Line:
    """Connections to a server that answers `method`. `close` it."""

    def __init__(self, pid: int, port: int, method: str, connections: int) -> None:
        self.pid = pid
        self._message = masked(msgspec.json.encode({"jsonrpc": "2.0", "id": 7, "method": method, "params": PARAMS}))
        self._sockets = [connect(port, "websocket") for _ in range(connections)]
        for each in self._sockets:
            each.settimeout(10)

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def cost(self, calls: int, in_flight: int) -> Cost:
        """Of calls of which each connection has so many under way. The server is stopped while they ask, as it would
        be at its limit: see `tests/support/load.py`."""
        rounds = calls // (in_flight * len(self._sockets))
        started_s, cpu_us = time.perf_counter(), self._cpu_us()
        for _ in range(rounds):
            os.kill(self.pid, signal.SIGSTOP)
            for each in self._sockets:
                each.sendall(self._message * in_flight)
            os.kill(self.pid, signal.SIGCONT)
            for each in self._sockets:
                _take_answers(each, in_flight)
        calls = rounds * in_flight * len(self._sockets)
        return Cost((self._cpu_us() - cpu_us) / calls, (time.perf_counter() - started_s) * 1e6 / calls)

    def _cpu_us(self) -> float:
        """Of the server's main thread, where its loop runs."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1000


def _take_answers(connection: socket.socket, count: int) -> None:
    before = b""
    while count > 0:
        received = connection.recv(65536)
        assert received, "the server ended the connection"
        data = before + received
        count -= data.count(_MARK)
        before = data[1 - len(_MARK) :]  # half a mark may stand at the end


@contextmanager
def serving(name: str, *files: str) -> Iterator[tuple[int, int]]:
    """A server's pid and port."""
    words = (sys.executable, "-m", "tests.bench.push.rpc", name, *files)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def take_turns(lines: dict[str, Line], *, rounds: int, calls: int, in_flight: int) -> dict[str, list[Cost]]:
    """What each line costs, round by round, so that each is measured beside the others. Where there are two
    processors, servers and client have one each."""
    costs: dict[str, list[Cost]] = {name: [] for name in lines}
    with ExitStack() as stack:
        for pid in {line.pid for line in lines.values()}:
            stack.enter_context(apart_from(pid))
        for line in lines.values():
            line.cost(calls, in_flight)
        for _ in range(rounds):
            for name, line in lines.items():
                costs[name].append(line.cost(calls, in_flight))
    return costs


def times_cheaper(costs: Iterable[Cost], peer: Iterable[Cost]) -> Cost:
    """The medians of how many times the peer's cost is ours, round by round."""
    ratios = [
        (theirs.cpu_us / ours.cpu_us, theirs.clock_us / ours.clock_us) for ours, theirs in zip(costs, peer, strict=True)
    ]
    cpu, clock = zip(*ratios, strict=True)
    return Cost(statistics.median(cpu), statistics.median(clock))


async def main(name: str, skill: bytes) -> None:
    is_ours = name == "skillwire"
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        skillwire() if is_ours else fastapi(skill),
        lifespan="off",
        log_config=None,
        access_log=False,
        ws_per_message_deflate=False,
        http=RawHttpProtocol if is_ours else "httptools",
        ws=RawWebSocketProtocol if is_ours else "websockets-sansio",
    )
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], b"".join(Path(file).read_bytes() for file in sys.argv[2:])))
