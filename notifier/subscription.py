"""One subscriber: a cursor into the shared log and the shared states, with no queue of its own.

A subscriber with a wire that is up to date shares the cursor of its audience (`audience.py`); what follows holds
while it goes alone.

How a stream stays free of gaps and duplicates:

* The cursor is the seq of the last row looked at. Rows are consecutive, so "the next row" is always well
  defined, whether it comes from the ring or from the store.
* Joining a topic is synchronous and notes the head of that moment. Nothing is delivered until the join is
  acknowledged; rows committed meanwhile stay ahead of the cursor.
* Each topic has a floor: rows at or below it were delivered before, or were never asked for. To replay one
  topic the cursor moves back, and the floors of the others keep them from repeating.
* After every await the state is looked at again: a page that was read before a join, a reset or an end is
  thrown away, not delivered.
* What `next_batch` returns counts as delivered when the caller comes back for more, so `position` never names
  a row that is still on its way.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

from notifier.close_codes import CloseCode
from notifier.events import Cursor, Event, Frame, Reset, ResetReason, StateEvent, Viewer
from notifier.history import LogTail, Trimmed
from notifier.join import Interest, Join, Recovery
from notifier.ledger import DeliveryLedger, LossReason
from notifier.metrics import event_resets
from notifier.ring import Ring
from notifier.states import LatestStates
from notifier.topics import LOG_TOPICS

_CLOSED = CloseCode(1000, "closed")


class SubscriptionEnded(Exception):
    """The hub ended this stream; `close` says how to tell the client."""

    def __init__(self, close: CloseCode) -> None:
        super().__init__(close.reason)
        self.close = close


class Place(NamedTuple):
    """Up to where a subscriber was sent what it wants: a row of the log, and a version of the states."""

    seq: int
    id: str
    state_version: int


class Shared(Protocol):
    """The audience a subscription is a member of."""

    @property
    def place(self) -> Place: ...
    @property
    def unsent(self) -> Mapping[str, int]: ...
    def release(self, subscription: "Subscription") -> None: ...


class Follower(Protocol):
    """Who moves a subscription's events to its wire."""

    def behind(self) -> None:
        """The subscription goes alone from here on."""
        ...

    def ended(self, close: CloseCode) -> None: ...


class Sources(NamedTuple):
    """What all subscriptions of a hub read from; `snapshot` is where a reset sends its client."""

    ring: Ring
    tail: LogTail
    states: LatestStates
    ledger: DeliveryLedger
    snapshot: str


class Subscription:
    """`next_batch` has one caller at a time; the other methods may be called beside it. `close` it when done.

    `on_alone` is called when it leaves an audience, `on_close` when it is closed.
    """

    __slots__ = (
        "_audience", "_close_code", "_confirmed_id", "_cursor", "_cursor_id", "_epoch_changes", "_first",
        "_first_recovery", "_in_flight", "_interests", "_is_closed", "_is_outstanding", "_ledger", "_on_alone",
        "_on_close", "_open_joins", "_reset", "_ring", "_snapshot", "_state_cursor", "_states", "_tail", "_waiter",
        "follower", "transport", "viewer",
    )  # fmt: skip

    def __init__(
        self,
        sources: Sources,
        viewer: Viewer,
        transport: str,
        on_alone: Callable[["Subscription"], None],
        on_close: Callable[["Subscription"], None],
    ) -> None:
        self.transport = transport
        self.viewer = viewer
        self.follower: Follower | None = None  # None for a caller of `next_batch`
        self._audience: Shared | None = None
        self._ring, self._tail, self._states, self._ledger, self._snapshot = sources
        self._on_alone = on_alone
        self._on_close = on_close
        self._close_code: CloseCode | None = None
        self._is_closed = False
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
        self._first: Join | None = None  # made by `begin`
        self._first_recovery: Recovery | None = None
        self._waiter: asyncio.Future[None] | None = None  # of `next_batch`

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._interests)

    @property
    def position(self) -> str:
        """The id up to which everything this subscriber wanted has been delivered."""
        if self._audience is not None:
            return self._audience.place.id
        return self._confirmed_id if self._is_outstanding or self._reset is not None else self._cursor_id

    @property
    def close_code(self) -> CloseCode | None:
        """How the stream was ended; None while it goes on."""
        return self._close_code

    @property
    def pending(self) -> int:
        """Events that are owed and neither delivered nor counted as lost yet."""
        unsent = sum(self._audience.unsent.values()) if self._audience is not None else 0
        return unsent + self._in_flight + sum(interest.owed for interest in self._interests.values())

    @property
    def is_current(self) -> bool:
        """True when all that is left to deliver is what comes next, as for any other that wants the same."""
        if self._close_code is not None or self._open_joins or self._reset is not None or self._is_outstanding:
            return False
        if self._first is not None and self._first_recovery is None:
            return False
        head = self._ring.head
        floors = (interest.floor for topic, interest in self._interests.items() if topic in LOG_TOPICS)
        if self._cursor != head or any(floor > head for floor in floors):
            return False
        return not any(self._wants_state(event) for event in self._states.changed_after(self._state_cursor))

    def go_together(self, audience: Shared) -> None:
        """Becomes a member of an audience; the hub's, for a subscription that `is_current`."""
        self._audience = audience

    def go_alone(self, place: Place, owed: Mapping[str, int]) -> None:
        """The audience's way to let a member go."""
        self._audience = None
        self._cursor, self._cursor_id, self._state_cursor = place
        for topic, count in owed.items():
            self._interests[topic].owed += count
        self._on_alone(self)
        if self.follower is not None:
            self.follower.behind()

    def step_out(self) -> None:
        """Leaves the audience, if it is in one."""
        if self._audience is not None:
            self._audience.release(self)

    def begin(self, topics: frozenset[str], since: str | None) -> None:
        """The first join of a stream that has no acknowledgement of its own; `start` does the rest."""
        self._first = self.join(topics, since)

    async def start(self) -> Recovery:
        """Recovers and acknowledges the first join; `next_batch` does it for callers that do not. Idempotent."""
        assert self._first is not None
        if self._first_recovery is None:
            self._first_recovery = await self.recover(self._first)
            self.acknowledge(self._first)
        return self._first_recovery

    def join(self, topics: frozenset[str], since: str | None) -> Join:
        """Registers topics, at once; `recover` and `acknowledge` (or `withdraw`) must follow.

        With `since`, log topics are replayed from there, also when they were joined before. Without it,
        topics that were joined before are left as they are.
        """
        self.step_out()
        added = topics if since is not None else topics - self._interests.keys()
        self.leave(added)
        for topic in added:
            if topic in LOG_TOPICS:
                self._interests[topic] = Interest(floor=self._ring.head, live=self._ring.head)
            else:
                self._interests[topic] = Interest(floor=0, live=self._states.version)
        if added - LOG_TOPICS:  # their snapshot: back to the first state, the others keep their place
            for topic in self._interests.keys() - LOG_TOPICS - added:
                self._interests[topic].floor = max(self._interests[topic].floor, self._state_cursor)
            self._state_cursor = 0
        join = Join(added, since, self._ring.head, self._ring.head_id)
        self._open_joins.add(join)
        return join

    async def recover(self, join: Join) -> Recovery:
        """Verifies the position the client wants to go on from, and arranges the replay or the reset.

        Raises what the history reader raises; the join should be withdrawn then.
        """
        topics = join.topics & LOG_TOPICS
        if join.since is None or not topics:
            return Recovery(join.position, join.since is not None, 0)
        epoch_changes = self._epoch_changes
        replay = await self._tail.replay(
            join.since, join.head, lambda event: event.topic in topics and self.viewer.sees(event)
        )
        if epoch_changes != self._epoch_changes:  # the reset that says so is already arranged
            return Recovery(self._ring.head_id, False, 0)
        if isinstance(replay, str):
            self._arrange_reset(replay)
            return Recovery(join.position, False, 0)
        cursor, replayed = replay
        self._go_back(join, topics, cursor)
        return Recovery(join.since if cursor.seq > join.head else join.position, True, replayed)

    def acknowledge(self, join: Join) -> None:
        """Lets events flow; call it once the answer to the client is on its way."""
        self._open_joins.discard(join)
        self._wake()

    def withdraw(self, join: Join) -> None:
        self.leave(join.topics)
        self.acknowledge(join)

    def leave(self, topics: frozenset[str]) -> None:
        """Forgets topics; unknown ones are ignored. What was owed of them is counted as lost."""
        self.step_out()
        for topic in topics & self._interests.keys():
            self._ledger.add_undelivered(self._interests.pop(topic).owed, "unsubscribed")

    async def next_batch(self, max_events: int = 64) -> list[Frame]:
        """Waits for news: a reset, then up to `max_events` states, then as many events of the log in seq order.

        Raises `SubscriptionEnded`, and what the history reader raises. Cancelling it loses nothing.
        """
        assert self._audience is None
        self.confirm()
        if self._first is not None and self._first_recovery is None:
            await self.start()
        while True:
            if self._close_code is not None:
                raise SubscriptionEnded(self._close_code)
            if not self._open_joins:
                frames = self._take(max_events)
                if not frames and not self._ring.reaches(self._cursor):
                    frames = await self._read_back(max_events)
                    if not frames:
                        continue
                if frames:
                    self._is_outstanding = True
                    return frames
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def end(self, close: CloseCode) -> None:
        """Makes `next_batch` raise; what was not delivered is left to a resume."""
        if self._close_code is None:
            self._close_code = close
            self.step_out()
            self._wake()
            if self.follower is not None:
                self.follower.ended(close)

    def close(self) -> None:
        """Unregisters; idempotent. What was owed, and a batch that was not confirmed, counts as lost."""
        if not self._is_closed:
            self._is_closed = True
            self.follower = None
            self.end(_CLOSED)
            self.step_out()
            self._lose("closed", self.topics)
            self._ledger.add_undelivered(self._in_flight, "closed")
            self._in_flight = 0
            self._on_close(self)

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
        return interest is not None and event.version > interest.floor and self.viewer.sees(event)

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

    def _take_states(self, max_events: int) -> list[StateEvent]:
        taken: list[StateEvent] = []
        for event in self._states.changed_after(self._state_cursor):
            self._state_cursor = event.version
            if self._wants_state(event):
                self._count_taken(self._interests[event.topic], event.version)
                taken.append(event)
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
