"""What every server of the push benchmarks does: wait for the clients, publish at a pace, account for the cost."""

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

DATA = {"id": "main/release-digest", "version": 7, "digest": "sha256:" + "5f" * 32, "mark": "§"}
BURST = 16
BURSTS = 60
BURSTS_IN_FLIGHT = 4

Publish = Callable[[int], Awaitable[None]]


def allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pss_kib() -> int:
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss")


def keep_apart(pid: int) -> None:
    """Where there are two processors, this process has one and that one the others: clients that are woken on the
    server's own would push it aside."""
    ours, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(0, {ours})
        os.sched_setaffinity(pid, others)


class Acknowledged:
    """What the clients say: one `+` when all are connected, one `.` for each event that has arrived everywhere."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.count = 0

    async def until(self, count: int) -> None:
        while self.count < count:
            self.count += len(await self._reader.read(4096))


async def paced(port: int, publish: Publish, clients: int, kind: str, events: int, per_s: float) -> None:
    """Publishes to `clients` and prints what it cost, as JSON. `publish(n)` sends n events in one turn of the loop."""
    arrived: asyncio.Future[asyncio.StreamReader] = asyncio.get_running_loop().create_future()
    control = await asyncio.start_server(lambda reader, _: arrived.set_result(reader), "127.0.0.1", 0)
    await asyncio.sleep(0.2)
    before_kib = pss_kib()
    load = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.push.load", str(port), str(control.sockets[0].getsockname()[1]),
        str(clients), kind,
    )  # fmt: skip
    keep_apart(load.pid)
    reader = await arrived
    await reader.readexactly(1)
    await asyncio.sleep(0.5)
    after_kib = pss_kib()
    acknowledged = Acknowledged(reader)
    await publish(1)  # whatever is made at the first event is not counted
    await acknowledged.until(1)
    started_s, cpu_s, last_ms = time.perf_counter(), time.process_time(), []
    for number in range(events):
        await asyncio.sleep(max(0, started_s + number / per_s - time.perf_counter()))
        sent_s = time.perf_counter()
        await publish(1)
        await acknowledged.until(number + 2)
        last_ms.append((time.perf_counter() - sent_s) * 1000)
    cpu_s = time.process_time() - cpu_s
    base = acknowledged.count
    burst_started_s, burst_cpu_s = time.perf_counter(), time.process_time()
    for number in range(BURSTS):
        await publish(BURST)
        await acknowledged.until(base + (number + 1 - BURSTS_IN_FLIGHT) * BURST)
    await acknowledged.until(base + BURSTS * BURST)
    burst_s, burst_cpu_s = time.perf_counter() - burst_started_s, time.process_time() - burst_cpu_s
    load.kill()
    await load.wait()
    sys.stdout.write(
        json.dumps({
            "us": cpu_s / (events * clients) * 1e6,
            "last_ms": statistics.median(last_ms),
            "last_ms_max": max(last_ms),
            "burst_per_s": BURSTS * BURST * clients / burst_s,
            "burst_us": burst_cpu_s / (BURSTS * BURST * clients) * 1e6,
            "kib": (after_kib - before_kib) / clients,
        })
        + "\n"
    )  # fmt: skip
    sys.stdout.flush()
