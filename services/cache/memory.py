"""L1: records in this process's memory, bounded in entries and bytes."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import cachetools

from services import metrics
from services.cache.codec import Record
from services.cache.read import HitRead
from services.cache.s3fifo import READS_COUNTED_MAX, S3FifoCache
from services.cache.space import Loader, Space
from services.clock import Monotonic, monotonic_s

Policy = Literal["s3fifo", "lru"]
# What an entry costs beside its value (tests/bench/test_cache_l1.py measures it).
ENTRY_BYTES = 900
_PLAIN = Space("")


class Cell:
    """A record in L1, and what a hit needs to know about it.

    `until_s` ends its life, `refresh_s` is when to load it anew while it is still good. Until
    `good_until_s`, as long as the horizon's revision is `revision`, `read` may be given out
    unchecked. `sent_s` is when the tail was sent that last confirmed the record. `hits` counts
    reads ever, of which `spared` no longer count for eviction, `counted` are in the statistics,
    and `hits_at_load` came before this record. `is_pinned` when the loader chose how long it lives.
    `loader` made the record, or would make it again; None for one of a warm start.
    """

    __slots__ = (
        "counted", "good_until_s", "hits", "hits_at_load", "is_pinned", "is_refused", "loaded_s", "loader", "read",
        "record", "refresh_s", "revision", "sent_s", "space", "spared", "until_s",
    )  # fmt: skip

    def __init__(self, record: Record, space: Space, loaded_s: float, until_s: float, refresh_s: float) -> None:
        self.record = record
        self.space = space
        self.loaded_s = loaded_s
        self.until_s = until_s
        self.refresh_s = refresh_s
        self.sent_s = -math.inf
        self.good_until_s = -math.inf
        self.revision = -1
        self.read: HitRead | None = None
        self.loader: Loader | None = None
        self.is_refused = False
        self.is_pinned = False
        self.hits = self.hits_at_load = self.spared = self.counted = 0

    @property
    def is_hot(self) -> bool:
        return self.hits - self.hits_at_load >= READS_COUNTED_MAX


class _LruCells(cachetools.LRUCache[str, Cell]):
    """Least recently used goes first; tells `on_evict` of what had to go."""

    def __init__(self, maxsize: int, getsizeof: Callable[[Cell], float], on_evict: Callable[[str, Cell], None]) -> None:
        super().__init__(maxsize, getsizeof)
        self._on_evict = on_evict

    def popitem(self) -> tuple[str, Cell]:
        key, cell = super().popitem()
        self._on_evict(key, cell)
        return key, cell


class MemoryTier:
    """Cells by key, at most `entries_max`. A value larger than a sixteenth of the bytes is not kept.

    `on_leave` is told of every cell that goes; its last argument is True for those that had to make room.
    """

    def __init__(
        self, *, entries_max: int, bytes_max: int, policy: Policy = "s3fifo", clock: Monotonic = monotonic_s
    ) -> None:
        self.entries_max = entries_max
        self.clock = clock
        self.policy = policy
        self.on_leave: Callable[[str, Cell, bool], None] = lambda _key, _cell, _evicted: None
        self.evicted = 0
        self._cells: cachetools.Cache[str, Cell]
        if policy == "lru":
            self._cells = _LruCells(bytes_max, _size, self._evicted)
        else:
            self._cells = S3FifoCache(  # type: ignore[assignment]  # a cache of what is counted; these are cells
                entries_max=entries_max,
                bytes_max=bytes_max,
                getsizeof=_size,  # type: ignore[arg-type]  # the same
                on_evict=self._evicted,  # type: ignore[arg-type]  # the same
            )
        # The dict below `cachetools.Cache`: its own `get` is two Python calls, half of what a hit may
        # cost. It is private there, so it is looked for, and the slow way taken if it has moved.
        inner = vars(self._cells).get("_Cache__data")
        self.find: Callable[[str], Cell | None] = inner.get if isinstance(inner, dict) else self._cells.get

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def currsize(self) -> float:
        """Bytes held, estimated as value plus `ENTRY_BYTES`."""
        return self._cells.currsize

    @property
    def maxsize(self) -> float:
        return self._cells.maxsize

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """In no order, without counting as a use."""
        for key in self._cells:
            cell = self.find(key)
            if cell is not None:
                yield key, cell

    def peek(self, key: str) -> Record | None:
        """The record, unless its time is up; whether the log allows it is not asked."""
        cell = self.find(key)
        return cell.record if cell is not None and self.clock() < cell.until_s else None

    def keep(
        self, key: str, record: Record, ttl_s: float, space: Space = _PLAIN, refresh_in_s: float = math.inf
    ) -> Cell | None:
        """The cell, or None when the value is too large to be kept."""
        before = self.find(key)
        if len(record.value) > self._cells.maxsize / 16:
            self.drop(key)  # what it would have replaced
            return None
        now = self.clock()
        cell = Cell(record, space, now, now + ttl_s, now + refresh_in_s)
        if before is not None:
            cell.hits = cell.hits_at_load = before.hits
            cell.counted = before.counted
        while len(self._cells) >= self.entries_max and key not in self._cells:
            self._cells.popitem()
        self._cells[key] = cell
        self._show_size()
        return cell

    def touched(self, key: str) -> None:
        """Tells the policy of a hit, if it wants to know: LRU does, S3-FIFO reads `Cell.hits`."""
        if self.policy == "lru":
            self._cells[key]

    def drop(self, key: str) -> None:
        cell = self._cells.pop(key, None)
        if cell is not None:
            self.on_leave(key, cell, False)
        self._show_size()

    def clear(self) -> None:
        self._cells.clear()
        self._show_size()

    def _evicted(self, key: str, cell: Cell) -> None:
        self.evicted += 1
        metrics.cache_l1_evictions.inc()
        self.on_leave(key, cell, True)

    def _show_size(self) -> None:
        metrics.cache_l1_bytes.set(self._cells.currsize)
        metrics.cache_l1_entries.set(len(self._cells))


def _size(cell: Cell) -> float:
    return len(cell.record.value) + ENTRY_BYTES
