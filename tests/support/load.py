"""Keep-alive HTTP/1.1 requests over many connections, and what they cost the server.

The cost is the server's own CPU time, from the system's accounting, so neither this client nor
anything else on the machine is part of it. All connections ask before the first answer is read:
the server always has work waiting, as under load.
"""

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LENGTH = b"content-length: "
_WAIT_S = 10.0


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def idle_share(pid: int, seconds: float) -> float:
    """Of one core, what a process uses that nobody asks anything."""
    before = cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / seconds


def cpu_us_of(pid: int, port: int, request: bytes, *, connections: int, rounds: int, idle: float = 0.0) -> float:
    """The server's CPU per request, of `rounds` requests on each connection; every answer must be a 200.

    `idle` is what the server uses anyway (`idle_share`): the longer a starved client takes, the more
    of it would be laid to its requests.
    """
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S))
            for _ in range(connections)
        ]
        before, started_s = cpu_s(pid), time.perf_counter()
        for _ in range(rounds):
            for each in sockets:
                each.sendall(request)
            for each in sockets:
                _take_answer(each)
        spent_s = cpu_s(pid) - before - idle * (time.perf_counter() - started_s)
        return spent_s * 1e6 / (connections * rounds)


def _take_answer(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), data
    lowered = head.lower() + b"\r\n"
    at = lowered.index(_LENGTH) + len(_LENGTH)
    missing = int(lowered[at : lowered.index(b"\r\n", at)]) - len(body)
    while missing > 0:
        missing -= len(_received(connection))


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the server closed the connection"
    return data
