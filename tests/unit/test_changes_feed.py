"""The feed: every row once and in order to every follower, and an honest answer to how old things may be."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from services.changes.log import DELTA_S, SILENT_S, STALE_MAX_S, ChangeFeed
from services.failures import Unavailable
from services.ports import ChangeReader, Position
from tests.support.chaos import BrokenSink, LosingReader, TroubledReader
from tests.support.listed_log import EPOCH, ListedLog, RecordingSink, StoppedClock

pytestmark = pytest.mark.anyio

START = Position(EPOCH, 0, f"{EPOCH}-0-00000000")
NEVER_S = 3600.0


@pytest.fixture
def log() -> ListedLog:
    return ListedLog()


@pytest.fixture
def reader(log: ListedLog) -> TroubledReader:
    return TroubledReader(log)


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
async def feed_of(clock: StoppedClock) -> AsyncIterator[Callable[..., ChangeFeed]]:
    feeds: list[ChangeFeed] = []

    def make(reader: ChangeReader, *, interval_s: float = NEVER_S) -> ChangeFeed:
        feeds.append(ChangeFeed(reader, START, interval_s=interval_s, clock=clock))
        return feeds[-1]

    yield make
    for feed in feeds:
        await feed.close()


FeedOf = Callable[..., ChangeFeed]


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110  # the feed has no event for this
            await asyncio.sleep(0.001)


async def test_followers_get_every_row_once_in_order_and_in_the_order_they_were_added(
    log: ListedLog, feed_of: FeedOf
) -> None:
    feed = feed_of(log)
    calls: list[str] = []
    first, second = RecordingSink("first", calls), RecordingSink("second", calls)
    feed.follow(first)
    feed.follow(second)

    log.commit("a", "b")
    await feed.tail()
    await feed.tail()
    log.commit("c")
    await asyncio.gather(*(feed.tail() for _ in range(10)))

    assert first.seqs == second.seqs == [1, 2, 3]
    assert calls == ["first", "second"] * 2
    assert (feed.applied, feed.position) == (3, await log.head())


async def test_a_tail_longer_than_a_page_is_applied_whole(log: ListedLog, feed_of: FeedOf) -> None:
    feed, sink = feed_of(log), RecordingSink()
    feed.follow(sink)
    log.commit(*(["a"] * 2500))
    await feed.tail()
    assert sink.seqs == list(range(1, 2501))


async def test_a_broken_follower_keeps_no_other_from_the_rows(log: ListedLog, feed_of: FeedOf) -> None:
    feed, broken, sound = feed_of(log), BrokenSink(), RecordingSink()
    feed.follow(broken)
    feed.follow(sound)
    for dep in ("a", "b"):
        log.commit(dep)
        await feed.tail()
    assert broken.given == sound.seqs == [1, 2]
    assert feed.applied == 2


async def test_a_kick_makes_the_next_tail_come_now_and_changes_nothing_else(
    log: ListedLog, reader: TroubledReader, feed_of: FeedOf
) -> None:
    feed, sink = feed_of(reader), RecordingSink()
    feed.follow(sink)
    feed.start()
    await until(lambda: reader.tails == 1)
    log.commit("a")
    assert sink.seqs == []

    for _ in range(50):
        feed.kick()
    await until(lambda: sink.seqs == [1])
    await asyncio.sleep(0)

    assert reader.tails == 2, "kicks add up to one"


async def test_a_kick_during_a_tail_is_not_lost(log: ListedLog, reader: TroubledReader, feed_of: FeedOf) -> None:
    feed, sink = feed_of(reader), RecordingSink()
    feed.follow(sink)
    done: list[int] = []

    def commit_behind_the_read() -> None:
        if not done:
            done.append(log.commit("a"))
            feed.kick()

    log.on_tail = commit_behind_the_read
    feed.start()
    await until(lambda: sink.seqs == [1])


async def test_without_a_kick_the_interval_brings_the_rows(log: ListedLog, feed_of: FeedOf) -> None:
    feed, sink = feed_of(log, interval_s=0.01), RecordingSink()
    feed.follow(sink)
    feed.start()
    log.commit("a")
    await until(lambda: sink.seqs == [1])


async def test_the_feed_goes_on_after_a_failing_reader(log: ListedLog, reader: TroubledReader, feed_of: FeedOf) -> None:
    feed, sink = feed_of(reader, interval_s=0.01), RecordingSink()
    feed.follow(sink)
    reader.failing = True
    feed.start()
    log.commit("a")
    await until(lambda: reader.tails >= 3)
    assert sink.seqs == []
    reader.failing = False
    await until(lambda: sink.seqs == [1])


async def test_a_tail_whose_answer_is_lost_does_not_hold_up_the_feed_for_ever(log: ListedLog, feed_of: FeedOf) -> None:
    feed, sink = feed_of(LosingReader(log, lost=1), interval_s=0.01), RecordingSink()
    feed.follow(sink)
    feed.start()
    log.commit("a")
    await until(lambda: sink.seqs == [1])


async def test_the_horizon_counts_from_the_sending_of_the_tail(
    log: ListedLog, clock: StoppedClock, feed_of: FeedOf
) -> None:
    feed = feed_of(log)
    sent_s = clock.now_s

    def answer_late() -> None:
        clock.now_s += 0.3

    log.on_tail = answer_late
    await feed.tail()

    assert feed.horizon_s == pytest.approx(sent_s + DELTA_S)
    clock.now_s = feed.horizon_s
    assert not feed.is_fresh


async def test_a_tail_of_several_pages_counts_from_the_sending_of_the_last(
    log: ListedLog, clock: StoppedClock, feed_of: FeedOf
) -> None:
    feed, started_s = feed_of(log), clock.now_s
    log.commit(*(["a"] * 1500))

    def take_a_while() -> None:
        clock.now_s += 0.1

    log.on_tail = take_a_while
    await feed.tail()
    assert feed.horizon_s == pytest.approx(started_s + 0.1 + DELTA_S)


async def test_within_the_horizon_no_tail_is_needed(
    reader: TroubledReader, clock: StoppedClock, feed_of: FeedOf
) -> None:
    feed = feed_of(reader)
    first = await feed.bound()
    assert (first.stale, first.asof, first.lag_s, reader.tails) == (False, 0, 0.0, 1)

    clock.now_s += DELTA_S - 0.01
    later = await feed.bound()

    assert (later.stale, later.lag_s, reader.tails) == (False, 0.49, 1)
    clock.now_s += 0.01
    assert not (await feed.bound()).stale
    assert reader.tails == 2


@pytest.mark.parametrize("trouble", ["hangs", "raises"])
async def test_past_the_horizon_the_last_known_state_is_labelled_then_refused_then_good_again(
    log: ListedLog, reader: TroubledReader, clock: StoppedClock, feed_of: FeedOf, trouble: str
) -> None:
    feed = feed_of(reader)
    log.commit("a")
    await feed.tail()
    log.commit("b")
    if trouble == "hangs":
        reader.gate.clear()
    else:
        reader.failing = True

    clock.now_s += DELTA_S
    async with asyncio.timeout(1):
        stale = await feed.bound()
    assert (stale.stale, stale.asof, stale.lag_s) == (True, 1, DELTA_S)
    clock.now_s = feed.horizon_s + STALE_MAX_S
    assert (await feed.bound()).lag_s == pytest.approx(STALE_MAX_S + DELTA_S)
    clock.now_s += 0.001
    with pytest.raises(Unavailable):
        await feed.bound()

    reader.failing = False
    reader.gate.set()
    recovered = await feed.bound()
    assert (recovered.stale, recovered.asof, recovered.lag_s) == (False, 2, 0.0)


async def test_a_database_that_has_just_not_answered_is_not_waited_for_again_at_once(
    reader: TroubledReader, clock: StoppedClock, feed_of: FeedOf
) -> None:
    feed = feed_of(reader)
    reader.failing = True
    clock.now_s += DELTA_S
    before = reader.tails
    assert [(await feed.bound()).stale for _ in range(5)] == [True] * 5
    assert reader.tails == before + 1
    clock.now_s += SILENT_S
    assert (await feed.bound()).stale
    assert reader.tails == before + 2

    reader.failing = False
    await feed.tail()  # the feed's own, which goes on meanwhile
    assert not (await feed.bound()).stale


async def test_many_readers_past_the_horizon_share_one_tail(reader: TroubledReader, feed_of: FeedOf) -> None:
    feed = feed_of(reader)
    reader.gate.clear()
    asking = [asyncio.create_task(feed.bound()) for _ in range(300)]
    for _ in range(3):
        await asyncio.sleep(0)
    reader.gate.set()

    bounds = await asyncio.gather(*asking)

    assert not any(bound.stale for bound in bounds)
    assert reader.tails == 1


async def test_reach_waits_for_a_change_and_gives_up_in_time(
    log: ListedLog, reader: TroubledReader, feed_of: FeedOf
) -> None:
    feed = feed_of(reader)
    assert await feed.reach(log.commit("a"), 1.0)
    assert await feed.reach(1, 0.0)
    assert reader.tails == 1

    async with asyncio.timeout(5):
        waiting = asyncio.create_task(feed.reach(2, 4.0))
        await until(lambda: reader.tails > 1)
        log.commit("b")
        assert await waiting


async def test_reach_outlasts_a_reader_that_fails_for_a_while(
    log: ListedLog, reader: TroubledReader, feed_of: FeedOf
) -> None:
    """A write that is committed must not be answered as failed because the tail after it failed."""
    feed = feed_of(reader)
    log.commit("a")
    reader.failing = True
    waiting = asyncio.create_task(feed.reach(1, 4.0))
    await until(lambda: reader.tails > 1)
    reader.failing = False
    assert await waiting


async def test_waiting_for_a_change_that_never_comes_does_not_hammer_the_database(
    reader: TroubledReader, feed_of: FeedOf
) -> None:
    async with asyncio.timeout(5):
        assert not await feed_of(reader).reach(99, 0.2)
    assert reader.tails <= 20


async def test_a_closed_feed_tails_no_more(reader: TroubledReader, feed_of: FeedOf) -> None:
    feed = feed_of(reader, interval_s=0.001)
    feed.start()
    await until(lambda: reader.tails >= 2)
    await feed.close()
    tails = reader.tails
    feed.kick()
    await asyncio.sleep(0.01)
    assert reader.tails == tails
