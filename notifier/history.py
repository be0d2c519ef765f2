"""Reading the log after a position: from the ring when it reaches back that far, else from the store."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from notifier.events import Cursor, Event, LogRow, ResetReason
from notifier.pages import LogPages
from notifier.ring import Ring

# A read blocks only the stream it is for; beyond this the stream is ended and may resume elsewhere.
READ_TIMEOUT_S = 5.0
_COUNT_PAGE_ROWS = 512


class HistoryReader(Protocol):
    """The stored log. Rows have consecutive seqs; old ones may have been trimmed away."""

    async def tail(self, after: int, limit: int) -> Sequence[LogRow]:
        """Up to `limit` rows with seq > `after`, in seq order."""
        ...


class Trimmed(Exception):
    """The log no longer holds the row after the position that was asked for."""


class HistoryTimeout(Exception):
    """The store did not answer within `READ_TIMEOUT_S`."""


class LogTail:
    """The whole log as one sequence: the ring in front of the store, without a seam.

    Every answer starts at exactly the row after the position asked for, so a reader that moves its position
    to the last row it was given can neither skip nor repeat one. All methods raise `HistoryTimeout`,
    and what the reader raises.
    """

    def __init__(self, ring: Ring, history: HistoryReader) -> None:
        self._ring = ring
        self._history = history
        self._pages = LogPages(self._read)
        self._pages_epoch = ring.epoch

    async def page(self, after: int, limit: int) -> list[Event]:
        """Up to `limit` stored rows after `after`, which the ring does not reach, ending where it begins.

        At least one; raises `Trimmed` when there is none.
        """
        events = [event for event in (await self._stored(after))[:limit] if event.seq < self._ring.first]
        if not events:
            raise Trimmed(f"the log has no row {after + 1}")
        return events

    async def replay(self, since: str, head: int, matches: Callable[[Event], bool]) -> tuple[Cursor, int] | ResetReason:
        """Where a stream can go on from, and how many matching events that repeats up to `head`; or why it cannot."""
        try:
            cursor = Cursor.parse(since)
        except ValueError:
            return "unknown"
        if cursor.epoch != self._ring.epoch:
            return "epoch"
        if (reason := await self._refusal(cursor)) is not None:
            return reason
        try:
            return cursor, await self._count(cursor.seq, head, matches)
        except Trimmed:
            return "trimmed"

    async def _refusal(self, cursor: Cursor) -> ResetReason | None:
        """Why a stream cannot go on from `cursor`, whose epoch is ours; None when it can.

        A cursor ahead of us is good when the store has its row: another replica announced it first.
        """
        known = self._ring.tag_at(cursor.seq)
        if known is not None:
            return None if known == cursor.tag else "tag"
        if cursor.seq == 0:  # before the first row there is no row whose tag could differ
            return None
        if cursor.seq <= self._ring.head and (stored := await self._stored(cursor.seq - 1)):
            return None if Cursor.parse(stored[0].id).tag == cursor.tag else "tag"
        rows = await self._read(cursor.seq - 1, 1)
        if not rows:
            return "ahead" if cursor.seq > self._ring.head else "trimmed"
        if rows[0].seq == cursor.seq:
            return None if Cursor.parse(rows[0].id).tag == cursor.tag else "tag"
        # The row itself is trimmed but its successor is the oldest kept: still nothing was missed.
        return None if rows[0].seq == cursor.seq + 1 else "trimmed"

    async def _count(self, after: int, until: int, matches: Callable[[Event], bool]) -> int:
        """How many rows with `after` < seq <= `until` match. Raises `Trimmed`."""
        count = 0
        while not self._ring.reaches(after):
            for event in await self.page(after, _COUNT_PAGE_ROWS):
                after = event.seq
                count += event.seq <= until and matches(event)
        return count + sum(event.seq <= until and matches(event) for event in self._ring.after(after))

    async def _stored(self, after: int) -> list[Event]:
        """Stored rows that follow `after` without a gap; none when the next one is not there."""
        if self._ring.epoch != self._pages_epoch:
            self._pages_epoch = self._ring.epoch
            self._pages.forget()
        return await self._pages.after(after)

    async def _read(self, after: int, limit: int) -> Sequence[LogRow]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._history.tail(after, limit)
        except TimeoutError as exc:
            raise HistoryTimeout(f"no answer within {READ_TIMEOUT_S} s") from exc
