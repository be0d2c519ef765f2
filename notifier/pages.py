"""Rows that the ring has let go, read once for all the streams that are behind.

Streams that were cut together come back together: each for itself they would read, decode and encode the same rows, and
a replica that others have just left has no time for that.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from notifier.events import Event, LogRow

PAGE_ROWS = 256
PAGES_BYTES_MAX = 8 * 1024 * 1024


class _Reading:
    """A page that is on its way; `error` is why it did not come, None also when its reader was cancelled."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.error: Exception | None = None


class LogPages:
    """The log in pages of `PAGE_ROWS`: those read last, of about `PAGES_BYTES_MAX`. `read` answers up to so many rows
    after a seq; what it raises is raised to everybody who waits for that page."""

    def __init__(self, read: Callable[[int, int], Awaitable[Sequence[LogRow]]], bytes_max: int = PAGES_BYTES_MAX):
        self._read = read
        self._bytes_max = bytes_max
        self._pages: OrderedDict[int, list[Event]] = OrderedDict()
        self._readings: dict[int, _Reading] = {}
        self._bytes = 0

    async def after(self, seq: int) -> list[Event]:
        """Rows with a greater seq, up to the end of their page, and not beyond one that is missing. Empty when
        the store has not the next row."""
        first = seq - seq % PAGE_ROWS
        while (events := self._known(first, seq)) is None:
            reading = self._readings.get(first)
            if reading is None:
                await self._fetch(first)
                return self._known(first, seq) or []
            await reading.is_over.wait()
            if reading.error is not None:
                raise reading.error.with_traceback(None)
        return events

    def forget(self) -> None:
        """The log has another history now."""
        self._pages.clear()
        self._readings.clear()
        self._bytes = 0

    def _known(self, first: int, seq: int) -> list[Event] | None:
        page = self._pages.get(first)
        if page is None or not page or page[-1].seq <= seq:
            return None
        self._pages.move_to_end(first)
        return page[seq + 1 - page[0].seq :] if page[0].seq <= seq + 1 else []

    async def _fetch(self, first: int) -> None:
        reading = self._readings[first] = _Reading()
        try:
            rows = await self._read(first, PAGE_ROWS)
            if self._readings.get(first) is reading:
                following = (row for at, row in enumerate(rows, rows[0].seq if rows else 0) if row.seq == at)
                self._keep(first, [Event(row) for row in following if row.seq <= first + PAGE_ROWS])
        except Exception as exc:
            reading.error = exc
            raise
        finally:
            if self._readings.get(first) is reading:
                del self._readings[first]
            reading.is_over.set()

    def _keep(self, first: int, events: list[Event]) -> None:
        self._bytes += sum(event.size for event in events) - sum(event.size for event in self._pages.pop(first, ()))
        self._pages[first] = events
        while self._bytes > self._bytes_max and len(self._pages) > 1:
            _, oldest = self._pages.popitem(last=False)
            self._bytes -= sum(event.size for event in oldest)
