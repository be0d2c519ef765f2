"""The newest rows of the log, shared by all subscribers: a subscription is a number into it."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from notifier.events import Cursor, Event


class LogPosition(Protocol):
    """A place in the log: `id` names the row at `seq`."""

    @property
    def epoch(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def id(self) -> str: ...


class LogSnapshot(Protocol):
    """The state of something as of a place in the log."""

    @property
    def position(self) -> LogPosition: ...


class Ring:
    """At most `events_max` events of about `bytes_max` with consecutive seqs, `first` to `head`; empty when
    `first > head`.

    `head_id` is the id of the row at `head` even while the ring is empty.
    """

    def __init__(self, events_max: int, start: LogPosition, bytes_max: int = 32 * 1024 * 1024) -> None:
        self._slots: list[Event | None] = [None] * events_max
        self._bytes_max = bytes_max
        self.restart(start.epoch, start.seq, start.id)

    def restart(self, epoch: str, head: int, head_id: str) -> None:
        """Empties the ring and goes on after `head`."""
        self._before_first_id = head_id  # the id of the row at first - 1; empty when it is not known
        self._slots = [None] * len(self._slots)
        self._bytes = 0
        self.epoch = epoch
        self.first = head + 1
        self.head = head
        self.head_id = head_id

    def remember(self, events: Sequence[Event]) -> None:
        """Takes the newest rows before anything is appended; they must end at `head` and follow one another."""
        if not events or events[-1].seq != self.head or events[-1].seq - events[0].seq != len(events) - 1:
            return
        self.restart(self.epoch, events[0].seq - 1, "")
        for event in events:
            self.append(event)

    def append(self, event: Event) -> None:
        """Takes a row after `head`, pushing out the oldest when full.

        A row further on than the next empties the ring: what lies between is in the store only.
        """
        if event.seq != self.head + 1:
            self.restart(self.epoch, event.seq - 1, "")
        elif event.seq - self.first == len(self._slots):
            self._push_out()
        self._slots[event.seq % len(self._slots)] = event
        self._bytes += event.size
        self.head = event.seq
        self.head_id = event.id
        while self._bytes > self._bytes_max and self.first < self.head:
            self._push_out()

    def _push_out(self) -> None:
        oldest = self[self.first]
        self._before_first_id = oldest.id
        self._bytes -= oldest.size
        self._slots[self.first % len(self._slots)] = None
        self.first += 1

    def __getitem__(self, seq: int) -> Event:
        event = self._slots[seq % len(self._slots)]
        assert event is not None
        assert event.seq == seq
        return event

    def after(self, seq: int) -> Iterator[Event]:
        """The events with a greater seq, oldest first; the ring must reach back to `seq`."""
        return (self[at] for at in range(seq + 1, self.head + 1))

    def reaches(self, seq: int) -> bool:
        """True when every row after `seq` that was announced here is still here."""
        return seq >= self.first - 1

    def tag_at(self, seq: int) -> str | None:
        """The tag of the row at `seq`; None when the ring does not know it."""
        known = self.id_at(seq)
        return Cursor.parse(known).tag if known else None

    def id_at(self, seq: int) -> str:
        """The id of the row at `seq`; empty when the ring does not know it."""
        if self.first <= seq <= self.head:
            return self[seq].id
        return self._before_first_id if seq == self.first - 1 else ""
