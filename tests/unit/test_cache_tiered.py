"""The tiers together: what is served, from where, and what is refused, whatever L2 or the timing does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.cache.codec import VALUE_BYTES_MAX, Codec, Record
from services.cache.deps import depends_on
from services.changes.levels import LINEARIZABLE, Level
from services.changes.log import DELTA_S, STALE_MAX_S
from services.failures import Unavailable
from tests.support.cached import CODEC, DEP, KEY, L2_KEY, SPACE, TTL_S, CachedReplica, cached_replica, settled
from tests.support.listed_log import EPOCH

pytestmark = pytest.mark.anyio


@pytest.fixture
async def replica() -> AsyncIterator[CachedReplica]:
    async with cached_replica() as replica:
        yield replica


def wire(record: Record) -> bytes:
    return CODEC.encode(record, L2_KEY, TTL_S)


def kept(replica: CachedReplica) -> Record | None:
    """What L2 was given."""
    stored = CODEC.decode(replica.second.kept[L2_KEY], L2_KEY)
    return stored.record if stored else None


async def test_the_first_read_loads_and_fills_both_tiers_and_the_second_is_l1s(replica: CachedReplica) -> None:
    assert await replica.read() == (b"as of 0", "l3")
    assert await replica.read() == (b"as of 0", "l1")
    await settled()
    assert kept(replica) == Record(EPOCH, 0, (DEP,), b"as of 0")
    assert replica.truth.loads == 1
    stats = replica.cache.stats
    assert (stats.l1_hits, stats.l2_hits, stats.loads, stats.refused) == (1, 0, 1, 0)


async def test_what_l2_has_is_served_and_fills_l1_on_the_way_back(replica: CachedReplica) -> None:
    replica.second.forged[L2_KEY] = wire(Record(EPOCH, 0, (DEP,), b"by another replica"))
    assert await replica.read() == (b"by another replica", "l2")
    assert await replica.read() == (b"by another replica", "l1")
    assert (replica.truth.loads, replica.second.asked) == (0, [L2_KEY])


async def test_a_change_of_a_dep_refuses_the_record_in_every_tier(replica: CachedReplica) -> None:
    await replica.read()
    await settled()
    replica.second.forged[L2_KEY] = replica.second.kept[L2_KEY]
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
        wire(Record(EPOCH, 1, (DEP,), b"old")),
        wire(Record("e1111111", 99, (DEP,), b"of another database")),
        wire(Record(EPOCH, 1, (), b"of a release that did not know the dep")),
        b"\x04" + wire(Record(EPOCH, 2, (DEP,), b"of another wire version"))[1:],
        CODEC.encode(Record(EPOCH, 2, (DEP,), b"of another key"), f"{L2_KEY}b", TTL_S),
        Codec(b"of whoever can write to Redis").encode(Record(EPOCH, 10**9, (DEP,), b"made up"), L2_KEY, TTL_S),
        b"garbage",
    ],
    ids=["old", "epoch", "deps", "wire version", "key", "seal", "garbage"],
)
async def test_what_l2_should_not_hold_is_refused_and_replaced(replica: CachedReplica, poison: bytes) -> None:
    replica.log.commit("skill:main/x", DEP)
    replica.second.forged[L2_KEY] = poison
    assert await replica.read() == (b"as of 2", "l3")
    await settled()
    assert kept(replica) == Record(EPOCH, 2, (DEP,), b"as of 2")


async def test_a_value_too_large_for_l2_stays_in_l1(replica: CachedReplica) -> None:
    async def load() -> bytes:
        return bytes(VALUE_BYTES_MAX + 1)

    for tier in ("l3", "l1"):
        assert (await replica.cache.get(SPACE, KEY, load)).tier == tier
    await settled()
    assert not any(replica.second.kept.values())


async def test_an_entry_whose_time_is_up_is_loaded_anew(replica: CachedReplica) -> None:
    await replica.read()
    await replica.pass_time(TTL_S)
    assert (await replica.read())[1] == "l3"


async def test_a_load_that_a_publish_overtakes_is_done_again_and_never_served_after_it(replica: CachedReplica) -> None:
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


async def test_a_publish_that_the_load_overtook_unseen_is_not_hidden_by_the_record(replica: CachedReplica) -> None:
    """The commit falls into the load, and is applied only after the record was kept."""

    def commit_once() -> None:
        if not replica.log.rows:
            replica.log.commit(DEP)

    replica.truth.during = commit_once
    assert await replica.read() == (b"as of 0", "l3")

    await replica.feed.tail()

    assert await replica.read() == (b"as of 1", "l3")


async def test_whoever_knows_of_a_change_gets_no_load_that_began_before_it(replica: CachedReplica) -> None:
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


async def test_a_load_that_says_late_what_it_read_is_no_answer_to_whoever_knows_better(replica: CachedReplica) -> None:
    """Two changes overtake both tries of the first load, and only at its end it is known that they concern it."""
    gates = [asyncio.Event() for _ in range(3)]
    loads = iter(gates)

    async def load() -> bytes:
        seen, gate = len(replica.log.rows), next(loads)
        await gate.wait()
        depends_on(DEP)
        return b"as of %d" % seen

    early = asyncio.create_task(replica.cache.get(SPACE, KEY, load))
    await settled()
    for gate in gates[:2]:
        replica.log.commit(DEP)
        await replica.feed.tail()
        late = asyncio.create_task(replica.cache.get(SPACE, KEY, load))
        await settled()
        gate.set()
        await settled()
    gates[2].set()
    assert (await late).value == b"as of 2"
    assert (await early).value == b"as of 1"


async def test_a_load_under_constant_change_ends(replica: CachedReplica) -> None:
    async def load() -> bytes:
        replica.log.commit(DEP)
        await replica.feed.tail()
        return await replica.truth()

    async with asyncio.timeout(5):
        assert (await replica.cache.get(SPACE, KEY, load)).tier == "l3"
    assert replica.truth.loads == 2
    assert replica.memory.peek(KEY) is None, "an answer that is old already is not kept"


async def test_a_thousand_readers_load_once(replica: CachedReplica) -> None:
    await replica.feed.tail()
    replica.truth.gate.clear()
    readers = [asyncio.create_task(replica.read()) for _ in range(1000)]
    await settled()
    readers[0].cancel()
    await settled()
    replica.truth.gate.set()
    assert await asyncio.gather(*readers[1:]) == [(b"as of 0", "l3")] * 999
    assert (replica.truth.loads, len(replica.second.asked)) == (1, 1)


async def test_an_error_of_the_loader_is_passed_on_and_not_kept(replica: CachedReplica) -> None:
    replica.truth.error = ValueError("a bug")
    for _ in range(2):
        with pytest.raises(ValueError, match="a bug"):
            await replica.read()
    replica.truth.error = None
    assert await replica.read() == (b"as of 0", "l3")
    assert replica.cache.stats.load_failures == 2


async def test_an_invalidated_key_is_loaded_anew(replica: CachedReplica) -> None:
    await replica.read()
    replica.cache.invalidate(KEY)
    assert (await replica.read())[1] == "l3"


async def test_an_invalidated_key_leaves_l2_as_well(replica: CachedReplica) -> None:
    await replica.read()
    await settled()
    assert replica.second.kept[L2_KEY]
    replica.cache.invalidate(KEY)
    await settled()
    assert replica.second.kept[L2_KEY] == b""


async def test_clearing_forgets_everything_here(replica: CachedReplica) -> None:
    await replica.read()
    replica.cache.clear()
    assert len(replica.memory) == 0
    assert (await replica.read())[1] == "l3"


async def test_a_change_of_everything_refuses_what_depends_on_nothing(replica: CachedReplica) -> None:
    async def load() -> bytes:
        return b"immutable"

    await replica.cache.get(SPACE, "blob", load)
    replica.log.commit(DEP)
    await replica.feed.tail()
    assert (await replica.cache.get(SPACE, "blob", load)).tier == "l1"
    replica.log.commit("*")
    await replica.feed.tail()
    assert (await replica.cache.get(SPACE, "blob", load)).tier == "l3"


async def test_without_the_database_l1_answers_with_a_label_and_then_not_at_all(replica: CachedReplica) -> None:
    lasting = SPACE.__class__("lasting", ttl_s=1000)
    await replica.read(lasting)
    replica.reader.failing = True
    replica.clock.now_s += DELTA_S
    read = await replica.get(lasting)
    assert (read.tier, read.bound.stale, read.bound.lag_s, read.stale_reason) == ("l1", True, DELTA_S, "log")
    assert replica.cache.stats.stale_served == 1

    replica.clock.now_s += STALE_MAX_S + 1
    with pytest.raises(Unavailable):
        await replica.read(lasting)

    replica.reader.failing = False
    assert not (await replica.get(lasting)).bound.stale


async def test_a_space_that_may_not_be_stale_does_without_the_database_not_at_all(replica: CachedReplica) -> None:
    strict = SPACE.__class__("strict", stale_if_error=False)
    await replica.read(strict)
    replica.reader.failing = True
    replica.clock.now_s += DELTA_S
    with pytest.raises(Unavailable):
        await replica.read(strict)


async def test_a_peek_is_a_hit_of_l1_while_the_log_is_fresh_and_else_nothing(replica: CachedReplica) -> None:
    assert replica.cache.peek(SPACE, KEY) is None
    await replica.read()
    read = replica.cache.peek(SPACE, KEY)
    assert read is not None
    assert (read.value, read.tier, read.bound) == (b"as of 0", "l1", (0, 0.0, False))

    replica.log.commit("skill:main/other")
    await replica.pass_time(0.2)
    assert read.bound.lag_s == pytest.approx(0.2), "what was given out before knows nothing of the tail since"
    read = replica.cache.peek(SPACE, KEY)
    assert read is not None
    assert read.bound == (1, 0.0, False)

    replica.clock.now_s += DELTA_S
    assert replica.cache.peek(SPACE, KEY) is None
    await replica.feed.tail()
    assert replica.cache.peek(SPACE, KEY) is not None
    replica.log.commit(DEP)
    await replica.feed.tail()
    assert replica.cache.peek(SPACE, KEY) is None
    assert replica.cache.stats.l1_hits == 3


async def test_a_key_of_another_space_is_never_taken_for_ones_own(replica: CachedReplica) -> None:
    await replica.feed.tail()
    for _ in range(3):
        await replica.read()
    other = SPACE.__class__("other")
    assert replica.cache.peek(other, KEY) is None
    assert await replica.read(other) == (b"as of 0", "l3")


async def test_strict_levels_see_what_a_bounded_read_may_miss(replica: CachedReplica) -> None:
    await replica.feed.tail()
    await replica.read()
    seq = replica.log.commit(DEP)
    assert await replica.read() == (b"as of 0", "l1"), "committed a moment ago: within the bound"
    assert await replica.read(level=Level("session", seq)) == (b"as of 1", "l3")
    replica.log.commit(DEP)
    assert await replica.read(level=LINEARIZABLE) == (b"as of 2", "l3")
    assert await replica.read(level=LINEARIZABLE) == (b"as of 2", "l1")


async def test_strict_levels_are_never_answered_stale(replica: CachedReplica) -> None:
    await replica.read()
    replica.log.commit(DEP)
    await replica.feed.tail()
    replica.truth.error = Unavailable("the database is away")
    assert (await replica.get()).stale_reason == "error"
    with pytest.raises(Unavailable):
        await replica.read(level=LINEARIZABLE)


async def test_a_reader_does_not_wait_for_a_load_that_a_change_has_made_old(replica: CachedReplica) -> None:
    replica.truth.gate.clear()
    early = asyncio.create_task(replica.read())
    await settled()
    replica.log.commit(DEP)
    await replica.feed.tail()
    gate, replica.truth.gate = replica.truth.gate, asyncio.Event()
    replica.truth.gate.set()
    assert await replica.read() == (b"as of 1", "l3"), "answered while the old load still hangs"
    gate.set()
    assert (await early)[1] == "l3"


async def test_the_figures_are_true(replica: CachedReplica) -> None:
    for _ in range(4):
        await replica.read()
    replica.log.commit(DEP)
    await replica.pass_time(5)
    await replica.read()
    await replica.pass_time(2)
    assert replica.cache.stats.l1_hits == 3
    stats = replica.cache.stats
    assert (stats.l1_hits, stats.misses, stats.loads, stats.refused) == (3, 2, 2, 1)
    assert (stats.l1_entries, stats.age_mean_s, stats.age_max_s) == (1, 2.0, 2.0)
    assert stats.l1_bytes == int(replica.memory.currsize) > 0
