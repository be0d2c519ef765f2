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
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from notifier.close_codes import CloseCode
from notifier.events import Frame, Viewer
from notifier.join import Interest, Join, Recovery
from notifier.reader import Reader, Sources
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


class Subscription(Reader):
    """`next_batch` has one caller at a time; the other methods may be called beside it. `close` it when done.

    `on_alone` is called when it leaves an audience, `on_close` when it is closed.
    """

    __slots__ = (
        "_audience", "_close_code", "_first", "_first_recovery", "_is_closed", "_on_alone", "_on_close", "follower",
    )  # fmt: skip

    def __init__(
        self,
        sources: Sources,
        viewer: Viewer,
        transport: str,
        on_alone: Callable[["Subscription"], None],
        on_close: Callable[["Subscription"], None],
    ) -> None:
        super().__init__(sources, viewer, transport)
        self.follower: Follower | None = None  # None for a caller of `next_batch`
        self._audience: Shared | None = None
        self._on_alone = on_alone
        self._on_close = on_close
        self._close_code: CloseCode | None = None
        self._is_closed = False
        self._first: Join | None = None  # made by `begin`
        self._first_recovery: Recovery | None = None

    @property
    def position(self) -> str:
        """The id up to which everything this subscriber wanted has been delivered."""
        return super().position if self._audience is None else self._audience.place.id

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
