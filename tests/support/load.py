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
        stack.enter_context(apart_from(pid))
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S))
            for _ in range(connections)
        ]
        before, started_s = cpu_s(pid), time.perf_counter()
        for _ in range(rounds):
            os.kill(pid, signal.SIGSTOP)
            for each in sockets:
                each.sendall(request)
            os.kill(pid, signal.SIGCONT)
            for each in sockets:
                _take_answer(each)
        spent_s = cpu_s(pid) - before - idle * (time.perf_counter() - started_s)
        return spent_s * 1e6 / (connections * rounds)


@contextmanager
def apart_from(pid: int) -> Iterator[None]:
    """Where there are two processors, that process and this one have one each meanwhile."""
    ours = os.sched_getaffinity(0)
    theirs, *others = sorted(ours)
    if not others:
        yield
        return
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        os.sched_setaffinity(thread, {theirs})
    os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
        for thread in threads:
            with suppress(ProcessLookupError):  # one that has ended meanwhile
                os.sched_setaffinity(thread, ours)


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
