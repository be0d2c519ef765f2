"""Fan-out: one shared ring, the latest states, and the subscriptions that read them.

Publishing never waits for a subscriber: it appends and counts, wakes those that go alone, and has the audiences
sent to before the loop turns again. Everything here runs on one event loop.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from notifier import metrics
from notifier.audience import Audience
from notifier.close_codes import SHUTDOWN, CloseCode
from notifier.events import Coverage, Cursor, Event, LogRow, State, StateEvent, Viewer
from notifier.history import HistoryReader, LogTail
from notifier.ledger import DeliveryLedger
from notifier.reader import Sources
from notifier.ring import LogPosition, Ring
from notifier.states import LatestStates
from notifier.subscription import Subscription
from notifier.topics import checked_topics, is_state_topic
from notifier.wire import Wire

STATE_KEYS_MAX = 4096
SNAPSHOT_PATH = "/api/v1/skills"


class Hub:
    """`events_max` and `bytes_max` bound the ring, and with it the memory that slow subscribers can cost."""

    def __init__(
        self,
        history: HistoryReader,
        position: LogPosition,
        *,
        events_max: int,
        bytes_max: int,
        utc_now: Callable[[], str],
        replica: str,
    ) -> None:
        self.replica = replica
        self._states_made = 0
        self.ledger = DeliveryLedger()
        self._ring = Ring(events_max, position, bytes_max)
        self._states = LatestStates(STATE_KEYS_MAX)
        self._utc_now = utc_now
        self._sources = Sources(self._ring, LogTail(self._ring, history), self._states, self.ledger, SNAPSHOT_PATH)
        # Dicts for their order: fan-out visits the longest subscribed first.
        self._subscriptions: dict[Subscription, None] = {}
        self._alone: dict[Subscription, None] = {}
        self._audiences: dict[tuple[Viewer, frozenset[str]], Audience] = {}
        self._unflushed: dict[Audience, None] = {}
        self._ending: CloseCode | None = None
        self.deserted = asyncio.Event()  # set while there are no subscriptions
        self.deserted.set()

    @property
    def position(self) -> str:
        """The id of the newest row that was applied."""
        return self._ring.head_id

    @property
    def presence(self) -> Counter[str]:
        """Subscribers that are up to date, by topic."""
        sizes: Counter[str] = Counter()
        for audience in self._audiences.values():
            for topic in audience.topics:
                sizes[topic] += len(audience)
        return sizes

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        return tuple(self._subscriptions)

    def remember(self, rows: Iterable[LogRow]) -> None:
        """See `UnifiedNotifier.remember`."""
        self._ring.remember([Event(row) for row in rows])

    def apply(self, rows: Iterable[LogRow]) -> None:
        """Takes committed rows in seq order. Rows that were applied before are ignored.

        A row of another epoch resets everybody: the database was restored, or went back.
        """
        for row in rows:
            epoch = Cursor.parse(row.id).epoch
            if epoch == self._ring.epoch and row.seq <= self._ring.head:
                continue
            event = Event(row)
            self.ledger.add_published()
            if epoch != self._ring.epoch:
                self._change_epoch(epoch, event)
                continue
            if row.seq != self._ring.head + 1:
                self._disband()
                for subscription in self._alone:
                    subscription.on_gap(row.seq)
            before_id = self._ring.head_id
            self._ring.append(event)
            for subscription in self._alone:
                subscription.on_row(event)
            for audience in tuple(self._audiences.values()):
                if audience.on_row(event, before_id):
                    self._flush_soon(audience)

    def restart(self, position: LogPosition) -> None:
        """The log goes on from here, in another history or past rows that are gone: every stream is told
        to read a snapshot."""
        reason: Literal["epoch", "trimmed"] = "trimmed" if position.epoch == self._ring.epoch else "epoch"
        self._disband()
        self._ring.restart(position.epoch, position.seq, position.id)
        for subscription in self._alone:
            subscription.on_epoch(reason)

    def publish_state(
        self, topic: str, key: str, kind: str, data: bytes, *, owner: str = "", visibility: str = "public"
    ) -> State:
        """Replaces the state of (topic, key); `data` is JSON. Raises ValueError for a topic that holds no states."""
        if not is_state_topic(topic):
            raise ValueError(f"{topic!r} is not a state topic")
        self._states_made += 1
        state = State(self.replica, self._states_made, topic, key, kind, self._utc_now(), Raw(data), owner, visibility)
        self._put(state)
        return state

    def take_state(self, state: State) -> None:
        """A state of another replica; ignored when it is not newer than the one that is here."""
        held = self._states.find(state.topic, state.key)
        if held is not None:
            here = held.state
            is_older = state.number <= here.number if state.replica == here.replica else state.at < here.at
            if is_older:
                return
        self._put(state)

    def forget_replica(self, replica: str) -> None:
        """States that speak of another replica are replaced by the news that they are gone."""
        for event in self._states:
            state = event.state
            if state.replica == replica and state.is_of_replica and not state.is_gone:
                kind, at = f"{state.topic}.gone", self._utc_now()
                self._put(msgspec.structs.replace(state, kind=kind, at=at, data=Raw(b"null")))

    @property
    def coverage(self) -> Coverage:
        return self._states.coverage

    def change_coverage(self, coverage: Coverage) -> None:
        """States that speak of replicas are announced again, so that their subscribers learn of it."""
        if coverage == self._states.coverage:
            return
        self._states.coverage = coverage
        for event in self._states:
            if event.state.is_of_replica and not event.state.is_gone:
                self._put(event.state)

    def _put(self, state: State) -> None:
        event = StateEvent(self._states.version + 1, state, self._states.coverage, is_own=state.replica == self.replica)
        self.ledger.add_published()
        replaced, evicted = self._states.put(state.key, event)
        listeners: tuple[Subscription | Audience, ...] = (*self._alone, *self._audiences.values())
        for listener in listeners:
            if replaced is not None:
                listener.on_state_gone(replaced, "conflated")
            if evicted is not None:
                listener.on_state_gone(evicted, "evicted")
        for subscription in self._alone:
            subscription.on_state(event)
        for audience in tuple(self._audiences.values()):
            if audience.on_state(event):
                self._flush_soon(audience)

    def open(self, viewer: Viewer, transport: str) -> Subscription:
        """A subscription without topics; it ends at once when the hub is ending."""
        subscription = Subscription(self._sources, viewer, transport, self._go_alone, self._forget)
        self._subscriptions[subscription] = None
        self._alone[subscription] = None
        self.deserted.clear()
        metrics.subscribers.labels(transport).inc()
        if self._ending is not None:
            subscription.end(self._ending)
        return subscription

    def subscribe(
        self, viewer: Viewer, topics: Iterable[str], since: str | None, transport: str = "local"
    ) -> Subscription:
        """Registers at once; `start` or `next_batch` comes next. Raises `UnknownTopic` and registers nothing."""
        wanted = checked_topics(topics)
        subscription = self.open(viewer, transport)
        subscription.begin(wanted, since)
        return subscription

    def settle(self, subscription: Subscription, wire: Wire) -> bool:
        """Makes a subscriber that is up to date a member of its audience; False when it is not."""
        if not subscription.is_current:
            return False
        key = (subscription.viewer, subscription.topics)
        if key in self._audiences:
            self._audiences[key].flush()  # this subscriber was sent those rows while it went alone
        audience = self._audiences.get(key)  # which is gone when the flush has paused its last member
        if audience is None:
            audience = self._audiences[key] = Audience(*key, self._ring, self._states, self.ledger)
        audience.add(subscription, wire)
        subscription.go_together(audience)
        del self._alone[subscription]
        return True

    def end_all(self, close: CloseCode = SHUTDOWN) -> None:
        """Ends every subscription, and those that are still to come."""
        self._ending = close
        for subscription in self.subscriptions:
            subscription.end(close)

    def _forget(self, subscription: Subscription) -> None:
        del self._subscriptions[subscription]
        del self._alone[subscription]
        if not self._subscriptions:
            self.deserted.set()
        metrics.subscribers.labels(subscription.transport).dec()

    def _change_epoch(self, epoch: str, event: Event) -> None:
        # The row itself is not replayed: whoever reads the snapshot that the reset asks for sees its effect.
        self._disband()
        self._ring.restart(epoch, event.seq, event.id)
        for subscription in self._alone:
            subscription.on_epoch()

    def _go_alone(self, subscription: Subscription) -> None:
        self._alone[subscription] = None
        key = (subscription.viewer, subscription.topics)
        if not self._audiences[key]:
            del self._audiences[key]

    def _disband(self) -> None:
        for audience in tuple(self._audiences.values()):
            audience.disband()

    def _flush_soon(self, audience: Audience) -> None:
        if audience.is_full:
            audience.flush()
            return
        if not self._unflushed:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unflushed[audience] = None

    def _flush(self) -> None:
        unflushed, self._unflushed = self._unflushed, {}
        for audience in unflushed:
            audience.flush()
