"""Keep-alive HTTP/1.1 requests over many connections, and what they cost the server.

The cost is the server's own CPU time, from the system's accounting, so neither this client nor
anything else on the machine is part of it. Two things keep the client out of it altogether:

* The server is stopped while all connections ask, so that it always has work waiting, as at its
  limit. One that keeps up goes to sleep after every few requests, and what waking it costs would
  be counted as theirs -- the more, the faster it is.
* Where there are two processors, client and server have one each. A client that an answer wakes on
  the server's own would push it aside, once a request.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_LENGTH = b"content-length: "
_WAIT_S = 60.0


def cpu_ns(pid: int) -> int:
    """Processor time of a process, all its threads that live."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def idle_share(pid: int, seconds: float) -> float:
    """Of one core, what a process uses that nobody asks anything."""
    before = cpu_ns(pid)
    time.sleep(seconds)
    return (cpu_ns(pid) - before) / 1e9 / seconds


def cpu_us_of(pid: int, port: int, request: bytes, *, connections: int, rounds: int, idle: float = 0.0) -> float:
    """The server's CPU per request, of `rounds` requests on each connection; every answer must be a 200.

    `idle` is what the server uses anyway (`idle_share`): the longer a starved client takes, the more
    of it would be laid to its requests.
    """
    with ExitStack() as stack:
        stack.enter_context(apart_from(pid))
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S))
            for _ in range(connections)
        ]
        _round(pid, sockets, request)  # what a connection costs is not a request's
        before, started_s = cpu_ns(pid), time.perf_counter()
        for _ in range(rounds):
            _round(pid, sockets, request)
        spent_s = (cpu_ns(pid) - before) / 1e9 - idle * (time.perf_counter() - started_s)
        return spent_s * 1e6 / (connections * rounds)


class Server(NamedTuple):
    """`idle` is its `idle_share`."""

    pid: int
    port: int
    idle: float = 0.0


def beside(
    ours: Server, floor: Server, request: bytes, *, connections: int, rounds: int, tries: int
) -> tuple[float, float]:
    """What the same request costs each. In turn, for a machine is slower for a while; the least, for nothing makes
    it faster."""
    costs = [
        [
            cpu_us_of(each.pid, each.port, request, connections=connections, rounds=rounds, idle=each.idle)
            for each in (ours, floor)
        ]
        for _ in range(tries)
    ]
    return min(cost for cost, _ in costs), min(cost for _, cost in costs)


def answer_to(port: int, request: bytes) -> bytes:
    """The body of one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as connection:
        connection.sendall(request)
        return _take_answer(connection)


def _round(pid: int, sockets: list[socket.socket], request: bytes) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        for each in sockets:
            each.sendall(request)
    finally:
        os.kill(pid, signal.SIGCONT)
    for each in sockets:
        _take_answer(each)


@contextmanager
def apart_from(pid: int) -> Iterator[None]:
    """Where there are two processors, that process and this one have one each meanwhile."""
    ours = os.sched_getaffinity(0)
    theirs, *others = sorted(ours)
    if not others:
        yield
        return
    _bind(pid, {theirs})
    os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
        _bind(pid, ours)


def _bind(pid: int, processors: set[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # one that has ended meanwhile
            os.sched_setaffinity(int(task.name), processors)


def _take_answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), data
    lowered = head.lower() + b"\r\n"
    at = lowered.index(_LENGTH) + len(_LENGTH)
    parts, missing = [body], int(lowered[at : lowered.index(b"\r\n", at)]) - len(body)
    while missing > 0:
        parts.append(_received(connection))
        missing -= len(parts[-1])
    return b"".join(parts)


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1024 * 1024)
    assert data, "the server closed the connection"
    return data
