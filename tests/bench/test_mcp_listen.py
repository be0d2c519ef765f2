"""M5 and M6: from a change to the listen streams, and a thousand of them, beside the SDK's own.

M5 is from the publish's request to the frame, which has the whole publish in it, and from its answer to the
frame, which may be there before. FastMCP sends nobody a notice of a change, so there is no line of its. CPU is
the server's own.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from services.execution.process import rss_bytes
from tests.bench.test_mcp_edge import message, peer
from tests.support.bench import machine
from tests.support.load import cpu_ns
from tests.support.mcp_wire import zipped
from tests.support.service import Service, running

pytestmark = [pytest.mark.bench, pytest.mark.anyio]

STREAMS = 1000
ROUNDS = 20
STREAM_BYTES_MAX = 20 * 1024
WAIT_S = 60.0
FRAME = b"list_changed"
Change = Callable[[], Awaitable[None]]


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
    return await reader.readexactly(length)


class Crowd:
    """`count` open listen streams; `next` waits until every one has heard of one more change."""

    def __init__(self) -> None:
        self.heard: list[float] = []
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def join(self, port: int, count: int) -> None:
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(message("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, number))
            await reader.readuntil(b"acknowledged")
            await reader.readuntil(b"\r\n\r\n")
            self.readers.append(reader)
            self.writers.append(writer)

    async def next(self) -> tuple[float, float]:
        """When the first and the last heard."""

        async def one(reader: asyncio.StreamReader) -> float:
            await reader.readuntil(FRAME)
            return time.perf_counter()

        async with asyncio.timeout(WAIT_S):
            heard = await asyncio.gather(*(one(reader) for reader in self.readers))
        return min(heard), max(heard)

    def leave(self) -> None:
        for writer in self.writers:
            writer.close()


class Cost(NamedTuple):
    spread_ms: float
    cpu_us: float
    stream_bytes: float


def changing(client: httpx2.AsyncClient) -> Change:
    """Each call publishes another version of one tool."""
    numbers = itertools.count()

    async def change() -> None:
        tool = {"name": "run", "description": f"As of {next(numbers)}.", "inputSchema": {"type": "object"}}
        files = {
            "SKILL.md": "---\nname: changing\ndescription: Changes.\n---\n",
            "run.py": "def run(arguments):\n    return {}\n",
            "tools.json": json.dumps({"tools": [{**tool, "command": ["python", "run.py:run"]}]}),
        }
        answer = await client.post("/api/v1/skills", files={"file": ("s.zip", zipped(files))})
        assert answer.status_code == 201, answer.text

    return change


async def cost(pid: int, port: int, change: Change) -> Cost:
    before = rss_bytes(pid)
    crowd = Crowd()
    await crowd.join(port, STREAMS)
    per_stream = (rss_bytes(pid) - before) / STREAMS
    spreads, cpus = [], []
    for _ in range(5):
        begun = cpu_ns(pid)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(crowd.next())
            await change()
        first, last = waiting.result()
        spreads.append((last - first) * 1000)
        cpus.append((cpu_ns(pid) - begun) / STREAMS / 1000)
        await asyncio.sleep(0.2)  # the quiet time between two notices of a kind
    crowd.leave()
    return Cost(statistics.median(spreads), min(cpus), per_stream)


class Delay(NamedTuple):
    from_request_ms: float
    from_answer_ms: float


async def delays(listened: Service, change: Change) -> list[Delay]:
    crowd, found = Crowd(), []
    await crowd.join(listened.port, 1)
    for _ in range(ROUNDS):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(crowd.next())
            asked = time.perf_counter()
            await change()
            answered = time.perf_counter()
        heard = waiting.result()[0]
        found.append(Delay((heard - asked) * 1000, (heard - answered) * 1000))
        await asyncio.sleep(0.2)
    crowd.leave()
    return found


@asynccontextmanager
async def two_replicas(folder: Path, **settings: str) -> AsyncIterator[tuple[Service, Service, Change]]:
    (folder / "skills").mkdir(parents=True)
    settings = {"log_format": "json", "embedder": "off", **settings}
    with (
        running(folder / "skills", folder / "data", **settings) as one,
        running(folder / "skills", folder / "data", **settings) as other,
    ):
        async with httpx2.AsyncClient(base_url=one.url, timeout=30) as client:
            change = changing(client)
            await change()
            yield one, other, change


async def tell_delays(name: str, listened: Service, change: Change, budget_ms: int) -> None:
    found = await delays(listened, change)
    from_request, from_answer = zip(*found, strict=True)
    print(
        f"M5 {name:<28} answer of the publish to frame p50 {statistics.median(from_answer):.1f} ms, "
        f"max {max(from_answer):.1f} (budget {budget_ms}); request to frame p50 {statistics.median(from_request):.1f}"
    )


async def test_a_thousand_streams_hear_of_a_change(tmp_path: Path) -> None:
    print(f"\n{machine('mcp', 'starlette', 'uvicorn')}")
    async with two_replicas(tmp_path / "alone", redis_url="off") as (_, other, change):
        await tell_delays("other replica, without Redis", other, change, 250)
    async with two_replicas(tmp_path / "with") as (one, other, change):
        await tell_delays("same replica", one, change, 5)
        await tell_delays("other replica, with Redis", other, change, 10)
        ours = await cost(one.process.pid, one.port, change)
        told("Skillwire", ours)
    with peer("low-level SDK") as (pid, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def poke() -> None:
            await exchange(reader, writer, message("tools/call", {"name": "change", "arguments": {}}, 1))

        theirs = await cost(pid, port, poke)
        told("low-level SDK", theirs)
        writer.close()
    assert ours.cpu_us < theirs.cpu_us / 2
    assert ours.stream_bytes <= STREAM_BYTES_MAX


def told(name: str, each: Cost) -> None:
    print(
        f"M6 {name:<15} {STREAMS} streams: first to last {each.spread_ms:.0f} ms, "
        f"{each.cpu_us:.1f} us CPU a stream, {each.stream_bytes / 1024:.1f} KiB each"
    )
