"""What the cache did and holds, in figures."""

import asyncio

import msgspec

from services import metrics
from services.cache.memory import Cell, MemoryTier

_COLLECTED_EVERY_S = 1.0


class Stats(msgspec.Struct):
    """Counters since start, then the state of L1 at the moment of asking.

    `misses` are reads that L1 could not answer; of these many may share one of the `l2_hits` and
    `loads`. `refused` are records of L1 and L2 that the log no longer allowed, `refreshes` early
    loads in the background, `lease_waits` loads left to another replica for a moment. Ages are
    those of the records in L1.
    """

    l1_hits: int = 0
    l2_hits: int = 0
    loads: int = 0
    refused: int = 0
    misses: int = 0
    negative_hits: int = 0
    stale_served: int = 0
    load_failures: int = 0
    refreshes: int = 0
    prolonged: int = 0
    lease_waits: int = 0
    warmed: int = 0
    fills_skipped: int = 0
    evicted: int = 0
    l1_entries: int = 0
    l1_bytes: int = 0
    l1_negatives: int = 0
    age_mean_s: float = 0.0
    age_max_s: float = 0.0


class Tally:
    """Keeps `counts`. A hit of L1 only raises its cell's number; once a second, while there are hits,
    and whenever somebody asks, these are brought together."""

    def __init__(self, memory: MemoryTier) -> None:
        self.counts = Stats()
        self._memory = memory
        self._reads_l1 = metrics.cache_reads.labels("l1")
        self._due: asyncio.TimerHandle | None = None

    def close(self) -> None:
        self.collect()

    def note_hits_soon(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(_COLLECTED_EVERY_S, self.collect)

    def collect(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        for _, cell in self._memory.cells():
            self.note_hits(cell)

    def note_hits(self, cell: Cell) -> None:
        """For a cell that leaves."""
        new = cell.hits - cell.counted
        if new:
            cell.counted = cell.hits
            self.counts.l1_hits += new
            self._reads_l1.inc(new)

    def note_stale(self, reason: str) -> None:
        self.counts.stale_served += 1
        metrics.cache_stale_served.labels(reason).inc()

    def snapshot(self) -> Stats:
        self.collect()
        counts, now_s = self.counts, self._memory.clock()
        cells = [cell for _, cell in self._memory.cells()]
        ages_s = [now_s - cell.loaded_s for cell in cells]
        counts.evicted = self._memory.evicted
        counts.l1_entries, counts.l1_bytes = len(cells), int(self._memory.currsize)
        counts.l1_negatives = sum(cell.record.negative for cell in cells)
        counts.age_mean_s = round(sum(ages_s) / len(ages_s), 3) if ages_s else 0.0
        counts.age_max_s = round(max(ages_s), 3) if ages_s else 0.0
        return msgspec.structs.replace(counts)
