"""What each level promises, on a feed whose reader answers when the test says so."""

import asyncio

import pytest

from services.changes.levels import BOUNDED, LINEARIZABLE, Level, parse_level
from services.changes.log import DELTA_S, ChangeFeed
from services.failures import Invalid, Unavailable
from services.models import Change
from services.ports import Position
from tests.support.listed_log import EPOCH, ListedLog

pytestmark = pytest.mark.anyio


class GatedLog(ListedLog):
    """Tells how many tails were sent, and answers them while `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.was_sent = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def tail(self, after: int, limit: int) -> list[Change]:
        self.sent += 1
        self.was_sent.set()
        rows = await super().tail(after, limit)
        await self.gate.wait()
        return rows


def feed_of(log: ListedLog) -> ChangeFeed:
    return ChangeFeed(log, Position(EPOCH, 0, f"{EPOCH}-0-00000000"), interval_s=0.15)


async def test_a_linearizable_read_holds_what_was_committed_before_it_came() -> None:
    log = GatedLog()
    feed = feed_of(log)
    await feed.tail()
    seq = log.commit("skill:a")
    assert (await feed.bound(BOUNDED)).asof == 0  # fresh enough, and a change behind
    assert (await feed.bound(LINEARIZABLE)).asof == seq
    await feed.close()


async def test_a_hundred_strict_readers_share_one_query() -> None:
    log = GatedLog()
    feed = feed_of(log)
    await asyncio.gather(*(feed.read_index() for _ in range(100)))
    assert log.sent == 1
    await feed.close()


async def test_a_strict_reader_that_comes_after_the_query_was_sent_gets_one_of_its_own() -> None:
    log = GatedLog()
    feed = feed_of(log)
    log.gate.clear()
    early = asyncio.create_task(feed.bound(LINEARIZABLE))
    await log.was_sent.wait()
    await asyncio.sleep(0)
    seq = log.commit("skill:a")
    late = asyncio.create_task(feed.bound(LINEARIZABLE))
    await asyncio.sleep(0)
    log.gate.set()
    assert (await early).asof <= (await late).asof
    assert (await late).asof == seq
    assert log.sent == 2
    await feed.close()


async def test_a_strict_reader_that_leaves_takes_nobody_with_it() -> None:
    log = GatedLog()
    feed = feed_of(log)
    log.gate.clear()
    leaving, staying = asyncio.create_task(feed.read_index()), asyncio.create_task(feed.read_index())
    await log.was_sent.wait()
    leaving.cancel()
    log.gate.set()
    async with asyncio.timeout(5):
        await staying
    await feed.close()


async def test_a_session_read_waits_for_its_own_write_and_says_when_it_does_not_come() -> None:
    log = GatedLog()
    feed = feed_of(log)
    seq = log.commit("skill:a")
    assert (await feed.bound(Level("session", seq))).asof == seq
    with pytest.raises(Unavailable) as refused:
        await feed.bound(Level("session", seq + 1))
    assert (refused.value.code, refused.value.facts["applied"]) == ("not_yet", seq)
    await feed.close()


async def test_a_session_read_past_the_horizon_learns_what_others_wrote_or_is_refused() -> None:
    """It was answered without a label from a state of any age (simulator, seed 8)."""
    log = GatedLog()
    now_s = 100.0
    feed = ChangeFeed(log, Position(EPOCH, 0, f"{EPOCH}-0-00000000"), interval_s=60, clock=lambda: now_s)
    own = log.commit("skill:a")
    assert (await feed.bound(Level("session", own))).asof == own
    theirs = log.commit("skill:b")
    now_s += DELTA_S
    assert (await feed.bound(Level("session", own))).asof == theirs
    now_s += DELTA_S
    log.gate.clear()
    with pytest.raises(Unavailable):
        await feed.bound(Level("session", own))
    await feed.close()


async def test_strict_levels_never_answer_stale_and_a_hung_query_does_not_stop_the_feed() -> None:
    log = GatedLog()
    feed = feed_of(log)
    log.gate.clear()
    with pytest.raises(Unavailable):
        await feed.bound(LINEARIZABLE)
    log.gate.set()
    async with asyncio.timeout(5):
        await feed.tail()
    await feed.close()


@pytest.mark.parametrize(
    ("text", "level"),
    [("", BOUNDED), ("bounded", BOUNDED), ("linearizable", LINEARIZABLE), ("session=12", Level("session", 12))],
)
def test_levels_are_read_from_text(text: str, level: Level) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize("text", ["strict", "session", "session=", "session=-1", "session=1e3", f"session={10**15}"])
def test_an_unknown_level_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_level(text)
