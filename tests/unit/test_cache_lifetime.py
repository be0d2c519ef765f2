"""How long an answer lives, what is loaded early, and what is served when the truth is late or away."""

import asyncio
import math

import pytest

from services.cache.codec import Record
from services.cache.refill import early
from services.cache.space import Loaded, Space
from services.changes.log import STALE_MAX_S
from services.failures import NotFound, Unavailable
from tests.support.cached import CODEC, DEP, KEY, L2_KEY, SPACE, TTL_S, cached_replica, settled
from tests.support.listed_log import EPOCH

pytestmark = pytest.mark.anyio


async def until(claim: "asyncio.Event") -> None:
    async with asyncio.timeout(5):
        await claim.wait()


async def test_an_entry_that_is_seldom_read_ends_exactly_with_its_time() -> None:
    async with cached_replica() as replica:
        await replica.read()
        await replica.pass_time(TTL_S - 0.001)
        assert (await replica.read())[1] == "l1"
        await replica.pass_time(0.001)
        assert (await replica.read())[1] == "l3"


async def test_an_entry_that_is_read_often_lives_on_to_its_longer_time_and_l2s_with_it() -> None:
    space = Space("detail", ttl_s=60, ttl_hot_s=150, jitter=0.0)
    async with cached_replica() as replica:
        for _ in range(4):
            await replica.read(space)
        for passed_s in (60, 60, 29):
            await replica.pass_time(passed_s)
            assert (await replica.read(space))[1] == "l1"
            await settled()
        stored = CODEC.decode(replica.second.kept[L2_KEY], L2_KEY)
        assert stored is not None
        assert 29 < stored.left_s <= 30
        await replica.pass_time(1)
        assert (await replica.read(space))[1] == "l3"
        assert replica.cache.stats.prolonged == 2


async def test_jitter_takes_up_to_its_share_off() -> None:
    async with cached_replica(chance=lambda: 0.5) as replica:
        await replica.read(Space("detail", ttl_s=60, jitter=0.1))
        cell = replica.memory.find(KEY)
        assert cell is not None
        assert cell.until_s - replica.clock() == 57


async def test_a_loader_may_choose_how_long_its_answer_lives() -> None:
    async def load() -> Loaded:
        return Loaded(b"brief", 5)

    async def load_nothing_to_keep() -> Loaded:
        return Loaded(b"now", 0)

    async with cached_replica(chance=lambda: 0.5) as replica:
        for _ in range(5):
            await replica.cache.get(SPACE, KEY, load)
        await replica.pass_time(4.99)
        assert (await replica.cache.get(SPACE, KEY, load)).tier == "l1"
        await replica.pass_time(0.01)
        assert (await replica.cache.get(SPACE, KEY, load)).tier == "l3", "use prolongs no chosen time"
        for _ in range(2):
            assert (await replica.cache.get(SPACE, "other", load_nothing_to_keep)).tier == "l3"


async def test_what_is_not_there_is_remembered_until_a_dep_changes() -> None:
    async with cached_replica() as replica:
        replica.truth.error = NotFound("no such skill", skill="main/a")
        for _ in range(3):
            with pytest.raises(NotFound, match="no such skill") as raised:
                await replica.read()
            assert (raised.value.code, raised.value.facts) == ("not_found", {"skill": "main/a"})
        assert replica.truth.loads == 1
        assert replica.cache.peek(SPACE, KEY) is None
        assert (replica.cache.stats.negative_hits, replica.cache.stats.l1_negatives) == (2, 1)

        replica.truth.error = None
        replica.log.commit(DEP)
        await replica.feed.tail()
        assert await replica.read() == (b"as of 1", "l3")


async def test_what_is_not_there_is_remembered_for_the_time_its_space_says_and_across_replicas() -> None:
    async with cached_replica() as replica:
        replica.truth.error = NotFound("no such skill")
        with pytest.raises(NotFound):
            await replica.read()
        await settled()
        replica.cache.clear()
        replica.second.forged[L2_KEY] = replica.second.kept[L2_KEY]
        with pytest.raises(NotFound, match="no such skill"):
            await replica.read()
        assert replica.truth.loads == 1
        replica.second.forged.clear()
        await replica.pass_time(SPACE.negative_ttl_s)
        with pytest.raises(NotFound):
            await replica.read()
        assert replica.truth.loads == 2


async def test_an_absence_that_nothing_would_end_is_not_remembered() -> None:
    loads = 0

    async def load() -> bytes:
        nonlocal loads
        loads += 1
        raise NotFound("gone")

    async with cached_replica() as replica:
        for _ in range(2):
            with pytest.raises(NotFound):
                await replica.cache.get(SPACE, KEY, load)
    assert loads == 2


def test_the_longer_a_load_takes_the_earlier_it_is_done_again() -> None:
    assert early(2.0, lambda: 0.0) == 0.0
    assert early(2.0, lambda: 1 - math.exp(-1)) == pytest.approx(2.0)
    assert early(0.001, lambda: 0.999) < 0.01


async def test_a_slow_load_is_done_anew_in_the_background_before_its_time_is_up() -> None:
    async with cached_replica(chance=lambda: 1 - math.exp(-2)) as replica:
        replica.truth.takes_s = 5.0
        await replica.read()
        await replica.pass_time(TTL_S - 10.1)
        assert (await replica.read())[1] == "l1"
        assert replica.truth.loads == 1
        await replica.pass_time(0.2)
        replica.truth.gate.clear()
        replica.truth.takes_s = 0.0
        replica.second.forged |= replica.second.kept  # what is to be replaced is no answer
        assert [await replica.read() for _ in range(3)] == [(b"as of 0", "l1")] * 3
        await settled()
        assert (replica.truth.loads, replica.cache.stats.refreshes) == (2, 1)
        replica.truth.gate.set()
        await settled()
        await replica.pass_time(TTL_S - 1)
        assert await replica.read() == (b"as of 0", "l1")


async def test_a_refresh_that_fails_harms_nobody() -> None:
    async with cached_replica(chance=lambda: 1 - math.exp(-2)) as replica:
        replica.truth.takes_s = 5.0
        await replica.read()
        await replica.pass_time(TTL_S - 5)
        replica.truth.takes_s = 0.0
        replica.truth.error = Unavailable("the database is away")
        assert (await replica.read())[1] == "l1"
        await settled()
        await replica.pass_time(4.9)
        assert (await replica.read())[1] == "l1"
        replica.clock.now_s += 0.2
        replica.truth.error = None
        assert (await replica.read())[1] == "l3", "to its end, and no longer"


async def test_a_load_that_is_too_slow_is_answered_with_what_was_before_and_goes_on() -> None:
    space = Space("detail", ttl_s=TTL_S, jitter=0.0, soft_timeout_s=0.01)
    async with cached_replica() as replica:
        await replica.read(space)
        replica.log.commit(DEP)
        await replica.feed.tail()
        replica.truth.gate.clear()
        read = await replica.get(space)
        assert (read.value, read.tier, read.stale_reason) == (b"as of 0", "l1", "slow")
        assert (read.bound.asof, read.bound.stale) == (0, True)
        replica.truth.gate.set()
        await settled()
        assert await replica.read(space) == (b"as of 1", "l1"), "the load went on to its end"
        assert replica.truth.loads == 2


async def test_without_a_record_of_before_even_an_impatient_reader_waits() -> None:
    space = Space("detail", jitter=0.0, soft_timeout_s=0.01)
    async with cached_replica() as replica:
        replica.truth.gate.clear()
        reading = asyncio.create_task(replica.read(space))
        await asyncio.sleep(0.03)  # over its patience: this is about time
        assert not reading.done()
        replica.truth.gate.set()
        assert await reading == (b"as of 0", "l3")


async def test_a_load_without_end_is_unavailable() -> None:
    space = Space("detail", hard_timeout_s=0.02)
    async with cached_replica() as replica:
        replica.truth.gate.clear()
        with pytest.raises(Unavailable, match="longer than"):
            await replica.read(space)
        replica.truth.gate.set()
        assert (await replica.read(space))[1] == "l3"


async def test_when_the_load_fails_the_record_of_before_stands_in_for_a_minute() -> None:
    async with cached_replica() as replica:
        await replica.read()
        replica.log.commit(DEP)
        await replica.pass_time(1)
        replica.truth.error = Unavailable("the blobs are away")
        read = await replica.get()
        assert (read.value, read.tier, read.stale_reason, read.bound.stale) == (b"as of 0", "l1", "error", True)
        assert read.bound.lag_s >= 1
        await replica.pass_time(STALE_MAX_S)
        with pytest.raises(Unavailable, match="blobs"):
            await replica.read()
        assert replica.cache.stats.stale_served == 1


async def test_what_the_truth_refuses_is_not_answered_with_what_was_before() -> None:
    async with cached_replica() as replica:
        await replica.read()
        replica.log.commit(DEP)
        await replica.feed.tail()
        replica.truth.error = NotFound("deleted")
        with pytest.raises(NotFound):
            await replica.read()
        with pytest.raises(NotFound):
            await replica.read()


async def test_a_space_without_stale_answers_passes_the_error_on() -> None:
    space = Space("detail", stale_if_error=False)
    async with cached_replica() as replica:
        await replica.read(space)
        replica.log.commit(DEP)
        await replica.feed.tail()
        replica.truth.error = Unavailable("the blobs are away")
        with pytest.raises(Unavailable):
            await replica.read(space)


async def test_a_record_of_l2_lives_in_l1_no_longer_than_it_would_have_there() -> None:
    async with cached_replica() as replica:
        data = CODEC.encode(Record(EPOCH, 0, (DEP,), b"by another"), L2_KEY, 5)
        replica.second.forged[L2_KEY] = data
        assert await replica.read() == (b"by another", "l2")
        replica.second.forged.clear()
        await replica.pass_time(5)
        assert (await replica.read())[1] == "l3"
