"""From a publish on one replica to the event on another's WebSocket, with hints and without.

Two processes on one data folder. Without Redis there are no hints, and the second replica learns
of the commit at its next tail; the clock starts before the upload is sent, so the publish itself
is part of every figure and is printed beside it.
"""

import asyncio
import io
import os
import platform
import statistics
import time
import zipfile
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support import listeners
from tests.support.service import running

pytestmark = [pytest.mark.anyio, pytest.mark.bench, pytest.mark.timeout(300)]

PUBLISHES = 100


def package(number: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("SKILL.md", f"---\nname: hinted\ndescription: Number {number}.\n---\n\nDo it.\n")
    return buffer.getvalue()


async def publish(client: httpx2.AsyncClient, number: int, started: float, answered: list[float]) -> None:
    answer = await client.post("/api/v1/skills", files={"file": ("p.zip", package(number), "application/zip")})
    answered.append(time.perf_counter() - started)
    assert answer.status_code == 201


@pytest.mark.parametrize("redis_url", ["embedded", "off"])
async def test_publish_to_event_on_another_replica(tmp_path: Path, redis_url: str) -> None:
    settings = {"redis_url": redis_url, "watch": "off", "embedder": "off"}
    answered: list[float] = []
    told: list[float] = []
    async with AsyncExitStack() as stack:
        writer = stack.enter_context(running(tmp_path / "skills", tmp_path / "data", **settings))
        reader = stack.enter_context(running(tmp_path / "skills", tmp_path / "data", **settings))
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=writer.url, timeout=5))
        events = await stack.enter_async_context(listeners.ws(reader.url))
        for number in range(PUBLISHES + 10):
            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                group.create_task(publish(client, number, started, answered))
                event = await events.next()
                told.append(time.perf_counter() - started)
            assert event["data"]["description"] == f"Number {number}."
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, redis {redis_url}")
    for name, times in (("publish answered", answered[10:]), ("event on the other", told[10:])):
        times.sort()
        p99 = times[round(len(times) * 0.99) - 1]
        print(f"  {name:<20} p50 {statistics.median(times) * 1000:7.1f} ms   p99 {p99 * 1000:7.1f} ms")
