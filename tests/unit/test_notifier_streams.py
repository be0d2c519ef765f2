"""Streams over wires that pause, resume and break at random turns: nothing is missed, repeated or uncounted."""

import asyncio
import random

import pytest

from notifier import Event, Reset, StateEvent, Viewer
from notifier.close_codes import SLOW, CloseCode
from notifier.events import Cursor, Frame
from notifier.notifier import UnifiedNotifier
from notifier.stream import Stream
from notifier.wire import Encode
from tests.support.notifier_log import EVERYONE, ListLog, announce, notifier_of
from tests.unit.test_notifier_interleavings import OWNERS, TOPICS, UnhurriedLog, publish

pytestmark = pytest.mark.anyio


def as_they_are(frames: object) -> list[Frame]:
    assert isinstance(frames, list)
    return list(frames)


class MemoryWire:
    """What was written, and a stop after every so many writes."""

    encode: Encode = staticmethod(as_they_are)

    def __init__(self, peer: Stream, rng: random.Random | None = None) -> None:
        self.frames: list[Frame] = []
        self.writes = 0
        self.close: CloseCode | None = None
        self.is_paused = False
        self._peer = peer
        self._rng = rng

    def write(self, payload: list[Frame]) -> None:
        assert self.close is None
        self.frames += payload
        self.writes += 1
        if self._rng is not None and self._rng.random() < 0.3:
            self.pause()

    def beat(self, message: bytes) -> bool:
        self.post(message)
        return True

    def post(self, message: bytes) -> None:
        assert message

    def pause(self) -> None:
        if not self.is_paused:
            self.is_paused = True
            self._peer.paused()

    def resume(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._peer.resumed()

    def finish(self, close: CloseCode) -> None:
        self.close = close
        self._peer.lost()

    def hold_reading(self) -> None:
        """Nothing is read."""

    def go_on_reading(self) -> None:
        """See `hold_reading`."""


class BareStream(Stream):
    def _heartbeat(self) -> bytes:
        return b"beat"

    def _goodbye(self, close: CloseCode) -> bytes:
        return close.reason.encode()


def opened(
    notifier: UnifiedNotifier, topics: frozenset[str], since: str | None = None
) -> tuple[BareStream, MemoryWire]:
    stream = BareStream(notifier, notifier.subscribe(EVERYONE, topics, since))
    wire = MemoryWire(stream)
    stream.begin(wire)
    return stream, wire


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def seqs(wire: MemoryWire) -> list[int]:
    return [frame.seq for frame in wire.frames if isinstance(frame, Event)]


async def test_rows_of_one_turn_are_one_write_to_each_who_is_up_to_date() -> None:
    log = ListLog()
    notifier = notifier_of(log, events_max=64)
    wires = [opened(notifier, frozenset({"skills"}))[1] for _ in range(3)]
    await turns()
    announce(log, notifier, 16)
    await turns()

    assert [seqs(wire) for wire in wires] == [list(range(1, 17))] * 3
    assert [wire.writes for wire in wires] == [1, 1, 1]
    assert notifier.audiences == {"skills": 3}
    assert notifier.ledger.delivered == notifier.ledger.owed == 48
    await notifier.close()


async def test_member_that_stops_between_a_row_and_its_write_misses_nothing() -> None:
    log = ListLog()
    notifier = notifier_of(log)
    _, wire = opened(notifier, frozenset({"skills", "stats"}))
    await turns()
    announce(log, notifier, 2)
    await turns()
    announce(log, notifier, 3)
    notifier.publish_state("stats", "cpu", "stats.updated", b"1")
    wire.pause()
    notifier.publish_state("stats", "cpu", "stats.updated", b"2")
    await turns()
    assert seqs(wire) == [1, 2]

    wire.resume()
    await turns()
    assert seqs(wire) == [1, 2, 3, 4, 5]
    assert next(frame.json for frame in wire.frames if isinstance(frame, StateEvent)).endswith(b'"data":2}')
    assert notifier.ledger.undelivered == {"conflated": 1}
    assert notifier.ledger.owed == notifier.ledger.delivered + 1 == 7
    await notifier.close()


async def test_stalled_wire_is_ended_as_slow_and_the_others_go_on() -> None:
    log = ListLog()
    notifier = notifier_of(log, stall_s=0.01)
    _, stalled = opened(notifier, frozenset({"skills"}))
    _, quick = opened(notifier, frozenset({"skills"}))
    await turns()
    stalled.pause()
    announce(log, notifier, 20)
    async with asyncio.timeout(5):
        while stalled.close is None:  # noqa: ASYNC110  # a timer ends it
            await asyncio.sleep(0.001)

    assert stalled.close == SLOW
    assert seqs(quick) == list(range(1, 21))
    assert notifier.ledger.undelivered == {"closed": 20}
    await notifier.close()


async def test_write_that_fails_ends_that_stream_only() -> None:
    log = ListLog()
    notifier = notifier_of(log)
    _, broken = opened(notifier, frozenset({"skills"}))
    _, sound = opened(notifier, frozenset({"skills"}))
    await turns()

    def fail(_: list[Frame]) -> None:
        raise RuntimeError("the handler is closed")

    broken.write = fail  # type: ignore[assignment, method-assign]
    announce(log, notifier, 2)
    await turns()

    assert broken.close is not None
    assert broken.close.reason == "unavailable"
    assert seqs(sound) == [1, 2]
    ledger = notifier.ledger
    assert (ledger.owed, ledger.delivered, ledger.undelivered) == (4, 2, {"closed": 2})
    await notifier.close()


class Watcher:
    """Reads what its wire got, breaks off at random with a part of it lost, and resumes on either replica."""

    def __init__(self, log: ListLog, notifiers: list[UnifiedNotifier], rng: random.Random) -> None:
        self._log = log
        self._notifiers = notifiers
        self._rng = rng
        self.viewer = Viewer(rng.choice([None, frozenset(), frozenset({"a"}), frozenset(OWNERS)]))
        self.topics = frozenset(rng.sample(TOPICS, rng.randint(1, 3)))
        self.start = len(log.rows)
        self.cursor = log.position.id
        self.received: list[int] = []

    async def run(self, is_over: asyncio.Event) -> None:
        while not (is_over.is_set() and self._is_complete()):
            notifier = self._rng.choice(self._notifiers)
            stream = BareStream(notifier, notifier.subscribe(self.viewer, self.topics, self.cursor))
            wire = MemoryWire(stream, self._rng)
            stream.begin(wire)
            for _ in range(self._rng.randint(5, 40)):
                await asyncio.sleep(0)
                if self._rng.random() < 0.4:
                    wire.resume()
            stream.lost()
            for frame in wire.frames[: self._rng.randint(0, len(wire.frames)) if self._rng.random() < 0.3 else None]:
                assert not isinstance(frame, Reset)
                if isinstance(frame, Event):
                    self.received.append(frame.seq)
                    self.cursor = frame.id

    def wanted(self) -> list[int]:
        rows = self._log.rows[self.start :]
        return [row.seq for row in rows if row.topic in self.topics and self.viewer.sees(row)]

    def _is_complete(self) -> bool:
        wanted = self.wanted()
        return not wanted or Cursor.parse(self.cursor).seq >= wanted[-1]


@pytest.mark.parametrize("seed", range(40))
async def test_every_stream_gets_exactly_its_rows_in_order(seed: int) -> None:
    rng = random.Random(seed)
    log = UnhurriedLog(rng)
    for _ in range(rng.randrange(20)):
        log.append(rng.choice(TOPICS))
    notifiers = [notifier_of(log, events_max=rng.randint(2, 24)) for _ in range(2)]
    watchers = [Watcher(log, notifiers, rng) for _ in range(5)]
    is_over = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watcher.run(is_over))
        await publish(log, notifiers, rng, trims=False)
        is_over.set()

    for watcher in watchers:
        assert watcher.received == watcher.wanted()
    for notifier in notifiers:
        await notifier.close()
        ledger = notifier.ledger
        assert ledger.owed == ledger.delivered + ledger.undelivered.total()
