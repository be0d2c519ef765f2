"""The tiers together: what is served, from where, and what is refused, whatever L2 or the timing does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from services.cache import codec
from services.cache.codec import Record
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.redis import NoSecondTier
from services.cache.tiered import L2_VALUE_BYTES_MAX, TieredCache
from services.changes.log import DELTA_S, STALE_MAX_S, ChangeFeed
from services.failures import NotFound, Unavailable
from services.ports import Position
from tests.support.chaos import TroubledReader, WatchedTier
from tests.support.listed_log import EPOCH, ListedLog, StoppedClock

pytestmark = pytest.mark.anyio

KEY, DEP, TTL_S = "detail:main/a", "skill:main/a", 60.0


class Truth:
    """The loader: answers the log's head as it was when the load began, late if `gate` is clear."""

    def __init__(self, log: ListedLog) -> None:
        self._log = log
        self.loads = 0
        self.during: Callable[[], None] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        self.loads += 1
        seen = len(self._log.rows)
        self.during()
        await self.gate.wait()
        return b"as of %d" % seen


class Replica(NamedTuple):
    log: ListedLog
    reader: TroubledReader
    clock: StoppedClock
    feed: ChangeFeed
    memory: MemoryTier
    second: WatchedTier
    cache: TieredCache
    truth: Truth

    async def read(self) -> tuple[bytes, str]:
        read = await self.cache.get_or_load(KEY, (DEP,), TTL_S, self.truth)
        return read.value, read.tier


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    """Follows an empty log from its start."""
    log, clock = ListedLog(), StoppedClock()
    reader = TroubledReader(log)
    feed = ChangeFeed(reader, Position(EPOCH, 0, f"{EPOCH}-0-00000000"), interval_s=3600, clock=clock)
    horizon = Horizon(EPOCH, 0)
    feed.follow(horizon)
    memory = MemoryTier(entries_max=100, bytes_max=4 * 1024 * 1024, clock=clock)
    second = WatchedTier(NoSecondTier())
    cache = TieredCache(feed, horizon, memory, second)
    yield Replica(log, reader, clock, feed, memory, second, cache, Truth(log))
    await cache.close()
    await feed.close()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_read_loads_and_fills_both_tiers_and_the_second_is_l1s(replica: Replica) -> None:
    assert await replica.read() == (b"as of 0", "l3")
    assert await replica.read() == (b"as of 0", "l1")
    assert codec.decode(replica.second.kept[KEY]) == Record(EPOCH, 0, (DEP,), b"as of 0")
    assert replica.truth.loads == 1
    stats = replica.cache.stats
    assert (stats.l1_hits, stats.l2_hits, stats.loads, stats.refused) == (1, 0, 1, 0)


async def test_what_l2_has_is_served_and_fills_l1_on_the_way_back(replica: Replica) -> None:
    replica.second.forged[KEY] = codec.encode(Record(EPOCH, 0, (DEP,), b"by another replica"))
    assert await replica.read() == (b"by another replica", "l2")
    assert await replica.read() == (b"by another replica", "l1")
    assert (replica.truth.loads, replica.second.asked) == (0, [KEY])


async def test_a_change_of_a_dep_refuses_the_record_in_every_tier(replica: Replica) -> None:
    await replica.read()
    replica.second.forged[KEY] = replica.second.kept[KEY]
    replica.log.commit("skill:main/other")
    await replica.feed.tail()
    assert await replica.read() == (b"as of 0", "l1"), "another skill's change is none of its business"

    replica.log.commit(DEP)
    await replica.feed.tail()

    assert await replica.read() == (b"as of 2", "l3")
    assert replica.cache.stats.refused == 2


@pytest.mark.parametrize(
    "poison",
    [
        codec.encode(Record(EPOCH, 1, (DEP,), b"old")),
        codec.encode(Record("e1111111", 99, (DEP,), b"of another database")),
        codec.encode(Record(EPOCH, 1, (), b"of a release that did not know the dep")),
        b"\x02" + codec.encode(Record(EPOCH, 2, (DEP,), b"of another wire version"))[1:],
        b"garbage",
    ],
    ids=["old", "epoch", "deps", "wire version", "garbage"],
)
async def test_what_l2_should_not_hold_is_refused_and_replaced(replica: Replica, poison: bytes) -> None:
    replica.log.commit("skill:main/x", DEP)
    replica.second.forged[KEY] = poison
    assert await replica.read() == (b"as of 2", "l3")
    assert codec.decode(replica.second.kept[KEY]) == Record(EPOCH, 2, (DEP,), b"as of 2")


async def test_a_value_too_large_for_l2_stays_in_l1(replica: Replica) -> None:
    async def load() -> bytes:
        return bytes(L2_VALUE_BYTES_MAX + 1)

    for tier in ("l3", "l1"):
        assert (await replica.cache.get_or_load(KEY, (DEP,), TTL_S, load)).tier == tier
    assert replica.second.kept == {}


async def test_an_entry_whose_time_is_up_is_loaded_anew(replica: Replica) -> None:
    await replica.read()
    replica.clock.now_s += TTL_S
    assert (await replica.read())[1] == "l3"


async def test_a_load_that_a_publish_overtakes_is_done_again_and_never_served_after_it(replica: Replica) -> None:
    """`asof` is taken before the load: what the load may not have seen has a larger seq."""
    replica.truth.gate.clear()
    reading = asyncio.create_task(replica.read())
    await settled()
    replica.log.commit(DEP)
    await replica.feed.tail()
    replica.truth.gate.set()

    assert await reading == (b"as of 1", "l3")
    assert replica.truth.loads == 2
    assert await replica.read() == (b"as of 1", "l1")


async def test_a_publish_that_the_load_overtook_unseen_is_not_hidden_by_the_record(replica: Replica) -> None:
    """The commit falls into the load, and is applied only after the record was kept."""

    def commit_once() -> None:
        if not replica.log.rows:
            replica.log.commit(DEP)

    replica.truth.during = commit_once
    assert await replica.read() == (b"as of 0", "l3")

    await replica.feed.tail()

    assert await replica.read() == (b"as of 1", "l3")


async def test_whoever_knows_of_a_change_gets_no_load_that_began_before_it(replica: Replica) -> None:
    """Two changes in a row overtake both tries of the load; whoever joined it between them must not be fobbed off."""
    replica.truth.during = replica.truth.gate.clear
    joined = [asyncio.create_task(replica.read())]
    await settled()
    for _ in range(2):
        replica.log.commit(DEP)
        await replica.feed.tail()
        joined.append(asyncio.create_task(replica.read()))
        await settled()
        replica.truth.gate.set()
        await settled()
    replica.truth.during = lambda: None
    replica.truth.gate.set()

    assert [await read for read in joined[1:]] == [(b"as of 1", "l3"), (b"as of 2", "l3")]
    assert (await joined[0])[0] >= b"as of 0"
    assert await replica.read() == (b"as of 2", "l1")


async def test_a_load_under_constant_change_ends(replica: Replica) -> None:
    async def load() -> bytes:
        replica.log.commit(DEP)
        await replica.feed.tail()
        return await replica.truth()

    async with asyncio.timeout(5):
        assert (await replica.cache.get_or_load(KEY, (DEP,), TTL_S, load)).tier == "l3"
    assert replica.truth.loads == 2
    assert replica.memory.peek(KEY) is None, "an answer that is old already is not kept"


async def test_a_thousand_readers_load_once(replica: Replica) -> None:
    await replica.feed.tail()
    replica.truth.gate.clear()
    readers = [asyncio.create_task(replica.read()) for _ in range(1000)]
    await settled()
    readers[0].cancel()
    await settled()
    replica.truth.gate.set()
    assert await asyncio.gather(*readers[1:]) == [(b"as of 0", "l3")] * 999
    assert (replica.truth.loads, len(replica.second.asked)) == (1, 1)


async def test_an_error_of_the_loader_is_passed_on_and_not_kept(replica: Replica) -> None:
    async def load() -> bytes:
        raise NotFound("gone")

    for _ in range(2):
        with pytest.raises(NotFound):
            await replica.cache.get_or_load(KEY, (DEP,), TTL_S, load)
    assert await replica.read() == (b"as of 0", "l3")


async def test_an_invalidated_key_is_loaded_anew(replica: Replica) -> None:
    await replica.read()
    replica.cache.invalidate(KEY)
    assert (await replica.read())[1] == "l3"


async def test_without_the_database_l1_answers_with_a_label_and_then_not_at_all(replica: Replica) -> None:
    await replica.read()
    replica.reader.failing = True
    replica.clock.now_s += DELTA_S
    read = await replica.cache.get_or_load(KEY, (DEP,), 1000, replica.truth)
    assert (read.tier, read.bound.stale, read.bound.lag_s) == ("l1", True, DELTA_S)

    replica.clock.now_s += STALE_MAX_S + 1
    with pytest.raises(Unavailable):
        await replica.read()

    replica.reader.failing = False
    assert not (await replica.cache.get_or_load(KEY, (DEP,), TTL_S, replica.truth)).bound.stale
