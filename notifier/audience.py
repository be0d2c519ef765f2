"""Subscribers that want the same and are up to date: one cursor for all of them, and one write for each.

Most subscribers are members of an audience most of the time. They have no task and no queue, and an event costs
each of them one `write`: the frames of one turn of the loop are joined once per kind of wire. A member whose
transport says stop, that changes its topics, or whose history ends, is released: it gets a cursor of its own
(`subscription.py`) that starts exactly where the audience stood, and a task that follows it until it is up to date.
"""

from collections import Counter

import structlog

from notifier import metrics
from notifier.close_codes import UNAVAILABLE
from notifier.events import Event, Frame, StateEvent, Viewer
from notifier.ledger import DeliveryLedger, LossReason
from notifier.ring import Ring
from notifier.states import LatestStates
from notifier.subscription import Place, Subscription
from notifier.wire import BATCH_BYTES, Encode, Wire

log = structlog.get_logger(__name__)


class Audience:
    """`on_row` and `on_state` note what is to be sent, `flush` sends it."""

    def __init__(
        self, viewer: Viewer, topics: frozenset[str], ring: Ring, states: LatestStates, ledger: DeliveryLedger
    ) -> None:
        self.viewer = viewer
        self.topics = topics
        self._ring = ring
        self._states = states
        self._ledger = ledger
        self._members: dict[Subscription, Wire] = {}
        self._transports: Counter[str] = Counter()
        # The members by kind of wire; None after a change.
        self._outlets: dict[Encode, list[tuple[Subscription, Wire]]] | None = None
        self._unsent: list[Event] = []
        self._unsent_bytes = 0
        self._before: tuple[int, str] = (0, "")  # the row before the first unsent one
        self._unsent_states: dict[StateEvent, None] = {}
        self._is_flushing = False
        self._leaving: list[Subscription] = []

    def __len__(self) -> int:
        return len(self._members)

    @property
    def is_full(self) -> bool:
        """True when what is unsent makes a batch."""
        return self._unsent_bytes >= BATCH_BYTES

    @property
    def place(self) -> Place:
        """Up to where every member was sent what it wants."""
        seq, row_id = self._before if self._unsent else (self._ring.head, self._ring.head_id)
        first = next(iter(self._unsent_states), None)
        return Place(seq, row_id, self._states.version if first is None else first.version - 1)

    @property
    def unsent(self) -> Counter[str]:
        """How many events of each topic wait for the next flush."""
        return Counter([*(state.topic for state in self._unsent_states), *(event.topic for event in self._unsent)])

    def add(self, subscription: Subscription, wire: Wire) -> None:
        """Takes a subscriber that is up to date, after a flush."""
        assert not self._unsent
        self._members[subscription] = wire
        self._transports[subscription.transport] += 1
        self._outlets = None

    def release(self, subscription: Subscription) -> None:
        """Lets a member go on by itself; while a flush is under way, when that is done."""
        if self._is_flushing:
            self._leaving.append(subscription)
            return
        del self._members[subscription]
        self._transports[subscription.transport] -= 1
        self._outlets = None
        subscription.go_alone(self.place, self.unsent)

    def disband(self) -> None:
        for subscription in tuple(self._members):
            self.release(subscription)

    def on_row(self, event: Event, before_id: str) -> bool:
        """True when the row is for this audience."""
        if event.topic not in self.topics or not self.viewer.sees(event):
            return False
        if not self._unsent:
            self._before = (event.seq - 1, before_id)
        self._unsent.append(event)
        self._unsent_bytes += len(event.json)
        self._ledger.owed += len(self._members)
        return True

    def on_state(self, event: StateEvent) -> bool:
        """True when the state is for this audience."""
        if event.topic not in self.topics or not self.viewer.sees(event):
            return False
        self._unsent_states[event] = None
        self._unsent_bytes += len(event.json)
        self._ledger.owed += len(self._members)
        return True

    def on_state_gone(self, event: StateEvent, reason: LossReason) -> None:
        if event in self._unsent_states:
            del self._unsent_states[event]
            self._ledger.add_undelivered(len(self._members), reason)

    def flush(self) -> None:
        """States first, then rows in seq order, to every member; never waits."""
        frames: list[Frame] = [*self._unsent_states, *self._unsent]
        if not frames:
            return
        self._unsent, self._unsent_states, self._unsent_bytes = [], {}, 0
        broken: list[Subscription] = []
        self._is_flushing = True
        for encode, outlets in self._by_kind().items():
            payload = encode(frames)
            for subscription, wire in outlets:
                try:
                    wire.write(payload)
                except Exception:  # the boundary of one subscriber
                    log.exception("a write failed", transport=subscription.transport)
                    broken.append(subscription)
        self._is_flushing = False
        for transport, members in self._transports.items():
            failed = sum(subscription.transport == transport for subscription in broken)
            self._ledger.add_delivered((members - failed) * len(frames), transport)
        for subscription in broken:
            metrics.stream_failures.labels(subscription.transport).inc()
            self._ledger.add_undelivered(len(frames), "closed")
            subscription.end(UNAVAILABLE)
        leaving, self._leaving = self._leaving, []
        for subscription in leaving:
            if subscription in self._members:
                self.release(subscription)

    def _by_kind(self) -> dict[Encode, list[tuple[Subscription, Wire]]]:
        if self._outlets is None:
            self._outlets = {}
            for subscription, wire in self._members.items():
                self._outlets.setdefault(wire.encode, []).append((subscription, wire))
        return self._outlets
