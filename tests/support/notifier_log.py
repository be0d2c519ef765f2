"""A change log in a list, for tests of the notifier: the store's role, and rows as the store would number them."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from notifier import Event, Frame, Viewer
from notifier.notifier import HEARTBEAT_S, STALL_S, UnifiedNotifier

EVERYONE = Viewer(owners=None)
STAMP = "2026-11-21T07:35:52.123Z"


@dataclass(frozen=True)
class Row:
    id: str
    prev: str
    seq: int
    topic: str
    kind: str
    owner: str
    visibility: str
    at: str
    data: bytes


class Position(NamedTuple):
    epoch: str
    seq: int
    id: str


class ListLog:
    """Rows from seq 1; `reads` counts pages. While `gate` is not set, readers wait at it."""

    def __init__(self, epoch: str = "e1") -> None:
        self.epoch = epoch
        self.rows: list[Row] = []
        self.reads = 0
        self.oldest_kept = 1
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.reader_waits = asyncio.Event()
        self._streams: dict[tuple[str, str], str] = {}

    @property
    def position(self) -> Position:
        return Position(self.epoch, len(self.rows), self.rows[-1].id if self.rows else f"{self.epoch}-0-00000000")

    def append(
        self, topic: str = "skills", owner: str = "main", visibility: str = "public", data: object = None
    ) -> Row:
        seq = len(self.rows) + 1
        tag = hashlib.sha1(f"{self.position.id}/{topic}/{owner}".encode()).hexdigest()[:8]
        row = Row(
            id=f"{self.epoch}-{seq}-{tag}",
            prev=self._streams.get((topic, owner), ""),
            seq=seq,
            topic=topic,
            kind=f"{topic}.changed",
            owner=owner,
            visibility=visibility,
            at=STAMP,
            data=msgspec.json.encode({"n": seq} if data is None else data),
        )
        self._streams[topic, owner] = row.id
        self.rows.append(row)
        return row

    async def tail(self, after: int, limit: int) -> Sequence[Row]:
        self.reads += 1
        self.reader_waits.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        first = max(after, self.oldest_kept - 1)
        return self.rows[first : first + limit]


def notifier_of(
    log: ListLog,
    events_max: int = 8,
    subscribers_max: int = 100,
    heartbeat_s: float = HEARTBEAT_S,
    stall_s: float = STALL_S,
    replica: str = "r1",
) -> UnifiedNotifier:
    """A notifier that starts to follow `log` where it stands."""
    return UnifiedNotifier(
        log,
        log.position,
        utc_now=lambda: STAMP,
        events_max=events_max,
        subscribers_max=subscribers_max,
        heartbeat_s=heartbeat_s,
        stall_s=stall_s,
        replica=replica,
    )


def announce(log: ListLog, notifier: UnifiedNotifier, count: int = 1, topic: str = "skills") -> list[Row]:
    """Commits rows and hands them to the notifier, as the follower of the log does."""
    rows = [log.append(topic) for _ in range(count)]
    notifier.apply(rows)
    return rows


def seqs(frames: Sequence[Frame]) -> list[int]:
    """The seqs of the log events among `frames`, in order."""
    return [frame.seq for frame in frames if isinstance(frame, Event)]
