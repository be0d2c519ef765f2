"""Random interleavings of publishing, slow reading, disconnecting and resuming: nothing is missed or repeated."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from notifier import Cursor, Event, Reset, Viewer
from notifier.notifier import UnifiedNotifier
from tests.support.notifier_log import ListLog, Row, notifier_of

pytestmark = pytest.mark.anyio

TOPICS = ("skills", "tools", "solutions")
OWNERS = ("a", "b")


class UnhurriedLog(ListLog):
    """Every read takes a random number of turns of the loop, so that rows are committed meanwhile."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def tail(self, after: int, limit: int) -> Sequence[Row]:
        rows = await super().tail(after, limit)
        for _ in range(self._rng.randrange(6)):
            await asyncio.sleep(0)
        return rows


def _seq(position: str) -> int:
    return Cursor.parse(position).seq


class Client:
    """Reads at a random pace, loses its connection at random, and resumes from the last id it has seen."""

    def __init__(self, log: ListLog, notifiers: list[UnifiedNotifier], rng: random.Random) -> None:
        self._log = log
        self._notifiers = notifiers
        self._rng = rng
        self.viewer = Viewer(rng.choice([None, frozenset(), frozenset({"a"}), frozenset(OWNERS)]))
        self.topics = frozenset(rng.sample(TOPICS, rng.randint(1, 3)))
        self.start = len(log.rows)
        self.cursor = log.position.id
        self.received: list[int] = []
        self.excused: set[int] = set()

    async def run(self, is_over: asyncio.Event) -> None:
        while not (is_over.is_set() and self._is_complete()):
            notifier = self._rng.choice(self._notifiers)
            subscription = notifier.subscribe(self.viewer, self.topics, self.cursor)
            try:
                for _ in range(self._rng.randint(1, 6)):
                    if is_over.is_set() and self._is_complete():
                        return
                    async with asyncio.timeout(5):
                        frames = await subscription.next_batch(self._rng.randint(1, 9))
                    # A connection may break inside a batch: only a part of it arrives.
                    for frame in frames[: len(frames) if self._rng.random() < 0.7 else self._rng.randint(0, 2)]:
                        self._take(frame)
                    if frames and self.cursor != self._id_of(frames[-1]):
                        break
                    for _ in range(self._rng.randrange(12)):
                        await asyncio.sleep(0)
                    if self._rng.random() < 0.3:  # a heartbeat, which may only ever move a client forward
                        self.cursor = max(self.cursor, subscription.position, key=_seq)
            finally:
                subscription.close()

    def _take(self, frame: object) -> None:
        if isinstance(frame, Reset):
            position = _seq(frame.position)
            self.excused |= set(range(_seq(self.cursor) + 1, position + 1))
            # A reset is a new beginning: on a replica that lags it may lie before what was seen elsewhere.
            self.received = [seq for seq in self.received if seq <= position]
            self.cursor = frame.position
        else:
            assert isinstance(frame, Event)
            self.received.append(frame.seq)
            self.cursor = frame.id

    @staticmethod
    def _id_of(frame: object) -> str:
        assert isinstance(frame, Event | Reset)
        return frame.id if isinstance(frame, Event) else frame.position

    def wanted(self) -> list[int]:
        rows = self._log.rows[self.start :]
        return [row.seq for row in rows if row.topic in self.topics and self.viewer.sees(row)]

    def _is_complete(self) -> bool:
        wanted = self.wanted()
        return not wanted or wanted[-1] in self.excused or (bool(self.received) and self.received[-1] == wanted[-1])


async def publish(log: ListLog, notifiers: list[UnifiedNotifier], rng: random.Random, *, trims: bool) -> None:
    behind = {id(notifier): len(log.rows) for notifier in notifiers}

    def catch_up(notifier: UnifiedNotifier) -> None:
        notifier.apply(log.rows[behind[id(notifier)] :])
        behind[id(notifier)] = len(log.rows)

    for _ in range(60):
        for _ in range(rng.randint(1, 4)):
            log.append(rng.choice(TOPICS), rng.choice(OWNERS), rng.choice(["public", "private"]))
        for notifier in notifiers:
            if rng.random() < 0.7:
                catch_up(notifier)
        if trims and rng.random() < 0.2:
            log.oldest_kept = rng.randint(log.oldest_kept, len(log.rows))
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
    for topic in TOPICS:
        log.append(topic)
    for notifier in notifiers:
        catch_up(notifier)


async def play(seed: int, *, trims: bool) -> tuple[list[Client], list[UnifiedNotifier]]:
    rng = random.Random(seed)
    log = UnhurriedLog(rng)
    for _ in range(rng.randrange(20)):
        log.append(rng.choice(TOPICS))
    notifiers = [notifier_of(log, events_max=rng.randint(2, 24)) for _ in range(2)]
    clients = [Client(log, notifiers, rng) for _ in range(5)]
    is_over = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(is_over))
        await publish(log, notifiers, rng, trims=trims)
        is_over.set()
    return clients, notifiers


@pytest.mark.parametrize("seed", range(60))
async def test_every_client_gets_exactly_its_rows_in_order(seed: int) -> None:
    clients, notifiers = await play(seed, trims=False)

    for client in clients:
        assert client.received == client.wanted()
        assert not client.excused
    for notifier in notifiers:
        ledger = notifier.ledger
        assert ledger.owed == ledger.delivered + ledger.undelivered.total()


@pytest.mark.parametrize("seed", range(60))
async def test_what_a_trimmed_log_cannot_replay_is_announced_by_a_reset(seed: int) -> None:
    clients, notifiers = await play(seed, trims=True)

    for client in clients:
        wanted = client.wanted()
        assert client.received == sorted(set(client.received))
        assert set(client.received) <= set(wanted)
        assert set(wanted) - set(client.received) <= client.excused
    for notifier in notifiers:
        ledger = notifier.ledger
        assert ledger.owed == ledger.delivered + ledger.undelivered.total()
