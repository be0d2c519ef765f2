"""What one subscriber was given of the log and of the states, and what comes next for it.

The rules that keep it free of gaps and duplicates stand in `subscription.py`.
"""

import asyncio
from collections.abc import Iterable
from typing import Literal, NamedTuple

from notifier.events import Cursor, Event, Frame, Reset, ResetReason, StateEvent, Viewer
from notifier.history import LogTail, Trimmed
from notifier.join import Interest, Join
from notifier.ledger import DeliveryLedger, LossReason
from notifier.metrics import event_resets
from notifier.ring import Ring
from notifier.states import LatestStates
from notifier.topics import LOG_TOPICS


class Sources(NamedTuple):
    """What all subscriptions of a hub read from; `snapshot` is where a reset sends its client."""

    ring: Ring
    tail: LogTail
    states: LatestStates
    ledger: DeliveryLedger
    snapshot: str


class Reader:
    """A cursor over rows and one over states, with what is owed of each topic and what is on its way."""

    __slots__ = (
        "_confirmed_id", "_cursor", "_cursor_id", "_epoch_changes", "_in_flight", "_interests", "_is_outstanding",
        "_ledger", "_open_joins", "_reset", "_ring", "_snapshot", "_state_cursor", "_states", "_tail", "_waiter",
        "transport", "viewer",
    )  # fmt: skip

    def __init__(self, sources: Sources, viewer: Viewer, transport: str) -> None:
        self.transport = transport
        self.viewer = viewer
        self._ring, self._tail, self._states, self._ledger, self._snapshot = sources
        self._interests: dict[str, Interest] = {}
        self._open_joins: set[Join] = set()
        self._cursor = self._ring.head
        self._cursor_id = self._ring.head_id
        self._confirmed_id = self._cursor_id
        self._is_outstanding = False  # True from the return of a batch to the next call
        self._in_flight = 0  # events in that batch
        self._state_cursor = 0
        self._epoch_changes = 0
        self._reset: Reset | None = None  # a later one replaces it: only the newest position matters
        self._waiter: asyncio.Future[None] | None = None  # of `next_batch`

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._interests)

    @property
    def position(self) -> str:
        """The id up to which everything this subscriber wanted has been delivered."""
        return self._confirmed_id if self._is_outstanding or self._reset is not None else self._cursor_id

    def on_row(self, event: Event) -> None:
        """A row entered the ring. A subscriber that is up to date and not interested passes over it."""
        if self._wants(event):
            self._interests[event.topic].owed += 1
            self._ledger.owed += 1
            self._wake()
        elif self._cursor == event.seq - 1:
            self._cursor, self._cursor_id = event.seq, event.id

    def on_state(self, event: StateEvent) -> None:
        interest = self._interests.get(event.topic)
        if interest is not None and self.viewer.sees(event):
            interest.owed += 1
            self._ledger.owed += 1
            self._wake()

    def on_state_gone(self, event: StateEvent, reason: LossReason) -> None:
        """A state was replaced or evicted; if it was owed here and not read yet, it is lost."""
        interest = self._interests.get(event.topic)
        if interest is None or not self.viewer.sees(event):
            return
        if event.version > max(self._state_cursor, interest.floor, interest.live):
            interest.owed -= 1
            self._ledger.add_undelivered(1, reason)

    def on_gap(self, seq: int) -> None:
        """Rows before `seq` were never announced as owed: up to there everything ahead is a replay."""
        for topic in self._interests.keys() & LOG_TOPICS:
            interest = self._interests[topic]
            self._ledger.owed -= interest.owed
            interest.owed, interest.live = 0, seq - 1
        self._wake()

    def on_epoch(self, reason: Literal["epoch", "trimmed"] = "epoch") -> None:
        """The ring starts anew: no position of before can be gone on from."""
        self._epoch_changes += 1
        self._freeze_position()
        self._cursor, self._cursor_id = self._ring.head, self._ring.head_id
        topics = self.topics & LOG_TOPICS
        self._lose(reason, topics)
        for topic in topics:
            self._interests[topic].floor = self._interests[topic].live = self._ring.head
        if topics:
            self._arrange_reset(reason)

    def _go_back(self, join: Join, topics: frozenset[str], cursor: Cursor) -> None:
        assert join.since is not None
        others = self._interests.keys() & LOG_TOPICS - topics
        # A client that comes from a faster replica has seen rows that were announced here during the check.
        for event in self._ring.after(max(join.head, self._ring.first - 1)):
            if event.topic in topics and event.seq <= cursor.seq and self._wants(event):
                self._interests[event.topic].owed -= 1
                self._ledger.owed -= 1
        if cursor.seq < self._cursor:
            for topic in others:
                self._interests[topic].floor = max(self._interests[topic].floor, self._cursor)
        if cursor.seq < self._cursor or not others:  # ahead of this replica: wait for it to catch up
            self._cursor, self._cursor_id = cursor.seq, join.since
        for topic in topics & self._interests.keys():
            self._interests[topic].floor = cursor.seq

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _freeze_position(self) -> None:
        """Keeps `position` where it is while the cursor moves over what is yet to be delivered."""
        self._confirmed_id = self.position

    def _arrange_reset(self, reason: ResetReason) -> None:
        self._reset = Reset(reason, self._cursor_id, self._snapshot)
        event_resets.labels(reason).inc()
        self._wake()

    def _wants(self, event: Event) -> bool:
        interest = self._interests.get(event.topic)
        return interest is not None and event.seq > interest.floor and self.viewer.sees(event)

    def _wants_state(self, event: StateEvent) -> bool:
        interest = self._interests.get(event.topic)
        if interest is None or event.version <= interest.floor or not self.viewer.sees(event):
            return False
        # That something has gone is news; who never knew it need not be told.
        return event.version > interest.live or not event.state.is_gone

    def confirm(self) -> None:
        """What `next_batch` returned last has been delivered."""
        self._ledger.add_delivered(self._in_flight, self.transport)
        self._in_flight = 0
        self._is_outstanding = False

    def _take(self, max_events: int) -> list[Frame]:
        """What can be had without waiting."""
        self._freeze_position()
        frames: list[Frame] = []
        if self._reset is not None:
            frames.append(self._reset)
            self._reset = None
        frames += self._take_states(max_events)
        if self._ring.reaches(self._cursor):
            frames += self._take_events(self._ring.after(self._cursor), max_events)
        return frames

    def _take_states(self, max_events: int) -> list[Frame]:
        taken: list[Frame] = []
        for event in self._states.changed_after(self._state_cursor):
            self._state_cursor = event.version
            if self._wants_state(event):
                interest = self._interests[event.topic]
                self._count_taken(interest, event.version)
                taken.append(event if event.version > interest.live else event.snapshot(self._states.coverage))
                if len(taken) == max_events:
                    break
        return taken

    def _take_events(self, events: Iterable[Event], max_events: int) -> list[Event]:
        taken: list[Event] = []
        for event in events:
            self._cursor, self._cursor_id = event.seq, event.id
            if self._wants(event):
                self._count_taken(self._interests[event.topic], event.seq)
                taken.append(event)
                if len(taken) == max_events:
                    break
        return taken

    def _count_taken(self, interest: Interest, number: int) -> None:
        self._in_flight += 1
        if number > interest.live:
            interest.owed -= 1
        else:
            self._ledger.owed += 1

    async def _read_back(self, max_events: int) -> list[Frame]:
        """The next events from the store, or an empty list when things have changed meanwhile."""
        cursor, epoch_changes = self._cursor, self._epoch_changes
        events: list[Event] | None
        try:
            events = await self._tail.page(cursor, max_events)
        except Trimmed:
            events = None
        if self._open_joins or cursor != self._cursor or epoch_changes != self._epoch_changes:
            return []
        self._freeze_position()
        if events is not None:
            return [*self._take_events(events, max_events)]
        topics = self.topics & LOG_TOPICS
        is_replay = any(self._interests[topic].live > cursor for topic in topics)
        reason: LossReason = "trimmed" if is_replay else "slow"
        self._lose(reason, topics)
        self._cursor, self._cursor_id = self._ring.head, self._ring.head_id
        self._arrange_reset("trimmed" if is_replay else "slow")
        return []

    def _lose(self, reason: LossReason, topics: frozenset[str]) -> None:
        for topic in topics:
            self._ledger.add_undelivered(self._interests[topic].owed, reason)
            self._interests[topic].owed = 0
