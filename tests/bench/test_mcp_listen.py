"""M5 and M6: from a change to the listen streams, and a thousand of them, beside the SDK's own.

Times are from the write's answer to the frame: a frame may be there before it. CPU is the server's own.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
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


def changing(url: str, numbers: "list[int]") -> Change:
    """Each call publishes another version of one tool."""

    async def change() -> None:
        numbers.append(len(numbers))
        tool = {"name": "run", "description": f"As of {len(numbers)}.", "inputSchema": {"type": "object"}}
        files = {
            "SKILL.md": "---\nname: changing\ndescription: Changes.\n---\n",
            "run.py": "def run(arguments):\n    return {}\n",
            "tools.json": json.dumps({"tools": [{**tool, "command": ["python", "run.py:run"]}]}),
        }
        async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
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


async def delays_ms(listened: Service, change: Change) -> list[float]:
    crowd, delays = Crowd(), []
    await crowd.join(listened.port, 1)
    for _ in range(ROUNDS):
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(crowd.next())
            await change()
            answered = time.perf_counter()
        delays.append((waiting.result()[0] - answered) * 1000)
        await asyncio.sleep(0.2)
    crowd.leave()
    return delays


async def test_a_thousand_streams_hear_of_a_change(tmp_path: Path) -> None:
    print(f"\n{machine('mcp', 'starlette', 'uvicorn')}")
    (tmp_path / "skills").mkdir()
    numbers: list[int] = []
    with (
        running(tmp_path / "skills", tmp_path / "data", log_format="json", embedder="off") as one,
        running(tmp_path / "skills", tmp_path / "data", log_format="json", embedder="off") as other,
    ):
        change = changing(one.url, numbers)
        await change()
        for name, listened in (("same replica", one), ("other replica", other)):
            delays = sorted(await delays_ms(listened, change))
            print(f"M5 {name:<15} answer -> frame: p50 {statistics.median(delays):.1f} ms, max {delays[-1]:.1f} ms")
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
