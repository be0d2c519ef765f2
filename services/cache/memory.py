"""L1: records in this process's memory, bounded in entries and bytes, with an exact TTL."""

from collections.abc import Iterator
from typing import NamedTuple

import cachetools

from services import metrics
from services.cache.codec import Record
from services.clock import Monotonic, monotonic_s


class Cell(NamedTuple):
    record: Record
    loaded_s: float
    until_s: float


class MemoryTier(cachetools.LRUCache[str, Cell]):
    """Least recently used goes first. A value larger than a sixteenth of the bytes is not kept."""

    def __init__(self, *, entries_max: int, bytes_max: int, clock: Monotonic = monotonic_s) -> None:
        super().__init__(maxsize=bytes_max, getsizeof=lambda cell: len(cell.record.value) + 256)
        self.entries_max = entries_max
        self.clock = clock

    def peek(self, key: str) -> Record | None:
        """The record, unless its time is up. A plain call: no coroutine, no lock."""
        cell = self.get(key)
        if cell is None:
            return None
        if self.clock() >= cell.until_s:
            del self[key]
            return None
        return cell.record

    def keep(self, key: str, record: Record, ttl_s: float) -> None:
        if len(record.value) > self.maxsize / 16:
            self.drop(key)  # what it would have replaced
            return
        while len(self) >= self.entries_max and key not in self:
            self.popitem()
        now_s = self.clock()
        self[key] = Cell(record, now_s, now_s + ttl_s)
        metrics.cache_l1_bytes.set(self.currsize)
        metrics.cache_l1_entries.set(len(self))

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """In no order, without counting as a use."""
        for key in self:
            yield key, cachetools.Cache.__getitem__(self, key)

    def drop(self, key: str) -> None:
        self.pop(key, None)
