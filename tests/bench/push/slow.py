"""Half of the clients stop reading: `python -m tests.bench.push.slow`.

100 clients, 4000 events of 4 KB at 400 a second. Prints how late the publisher was, what the reading half got, what
memory it cost, and what the stalled half has once it reads again, resumed where it was cut.
"""

import asyncio
import json
import os
import resource
import socket
import sys
import time

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from notifier import RpcError, RpcRegistry, UnifiedNotifier, Viewer, serve_websocket
from notifier.raw import RawHttpProtocol, RawWebSocketProtocol
from tests.bench.push.load import connect
from tests.bench.push.pace import pss_kib
from tests.support.notifier_log import STAMP, ListLog

CLIENTS, EVENTS, PER_S = 100, 4000, 400
DATA = {"text": "x" * 4096}


def events_in(received: bytearray) -> tuple[list[int], int]:
    """The seqs in whole frames, and how many bytes they took."""
    seqs, at = [], 0
    while len(received) >= at + 4:
        size, head = received[at + 1], 2
        if size == 126:
            size, head = int.from_bytes(received[at + 2 : at + 4], "big"), 4
        if len(received) < at + head + size:
            break
        message = msgspec.json.decode(bytes(received[at + head : at + head + size]))
        if message.get("method") == "event":
            seqs.append(int(message["params"]["id"].split("-")[1]))
        at += head + size
    return seqs, at


def read_on(clients: list[socket.socket], until: int) -> list[list[int]]:
    """What each client receives, until each has the event `until` or half a minute is over."""
    buffers = [bytearray() for _ in clients]
    seqs: list[list[int]] = [[] for _ in clients]
    stop_s = time.perf_counter() + 60
    while time.perf_counter() < stop_s and not all(got and got[-1] == until for got in seqs):
        for client, buffer, got in zip(clients, buffers, seqs, strict=True):
            try:
                data = client.recv(256 * 1024)
            except BlockingIOError:
                continue
            buffer += data
            found, size = events_in(buffer)
            got += found
            del buffer[:size]
    return seqs


def load(port: int) -> None:
    """One process of clients; the lines it prints and reads keep it in step with the server."""
    quick = [connect(port, "skillwire-ws") for _ in range(CLIENTS // 2)]
    stalled = [connect(port, "skillwire-ws", receive_bytes=8192) for _ in range(CLIENTS // 2)]
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    got = read_on(quick, EVENTS)
    sys.stdout.write(f"{sum(map(len, got))}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    late = read_on(stalled, EVENTS)
    exact = sum(seqs == list(range(1, EVENTS + 1)) for seqs in late)
    sys.stdout.write(f"{sum(map(len, late))} {exact}\n")
    sys.stdout.flush()


async def main() -> None:
    log = ListLog()
    notifier = UnifiedNotifier(log, log.position, utc_now=lambda: STAMP, stall_s=120, heartbeat_s=3600)
    rpc = RpcRegistry(lambda _: RpcError(-32603, "Internal error"))

    async def ws(websocket: WebSocket) -> None:
        await serve_websocket(websocket, notifier, rpc, Viewer(None), "bench")

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/ws", ws)]), lifespan="off", log_config=None, access_log=False,
        ws_per_message_deflate=False, http=RawHttpProtocol, ws=RawWebSocketProtocol,
    )  # fmt: skip
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listener]))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.push.slow", str(listener.getsockname()[1]),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    await child.stdout.readline()
    await asyncio.sleep(0.5)
    rows = [log.append(data=DATA) for _ in range(EVENTS)]
    before_kib, started_s, worst_s, peak_kib = pss_kib(), time.perf_counter(), 0.0, 0
    for number, row in enumerate(rows):
        await asyncio.sleep(max(0, started_s + number / PER_S - time.perf_counter()))
        at_s = time.perf_counter()
        notifier.apply([row])
        worst_s = max(worst_s, time.perf_counter() - at_s)
        if number % 500 == 0:
            peak_kib = max(peak_kib, pss_kib())
    took_s = time.perf_counter() - started_s
    quick = int(await child.stdout.readline())
    peak_kib = max(peak_kib, pss_kib())
    child.stdin.write(b"\n")
    stalled, exact = (await child.stdout.readline()).split()
    await child.wait()
    sys.stdout.write(
        json.dumps({
            "publisher_s": took_s, "worst_publish_ms": worst_s * 1000, "quick_got": quick,
            "mb": (peak_kib - before_kib) / 1024,
            "stalled_got": int(stalled), "stalled_exact": int(exact),
        }) + "\n"
    )  # fmt: skip
    sys.stdout.flush()
    serving.cancel()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if len(sys.argv) > 1:
        load(int(sys.argv[1]))
    else:
        uvloop.run(main())
        os._exit(0)
