"""S3-FIFO eviction: three queues, and no work on a hit but counting it.

New keys enter the *small* queue, a tenth of the room. Whoever leaves it unread is evicted and
remembered by name in the *ghost* queue; whoever was read twice or more goes on to *main*. A key
that comes back while the ghost remembers it goes to main at once. Main is a queue with second
chances: its oldest goes back to the end with one read less, until none is left. So a scan passes
through a tenth of the memory, where LRU would give it everything.

Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction (SOSP 2023).
Hit ratios against LRU on generated and real traces: `tests/bench/test_cache_hit_ratio.py`.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import cachetools

READS_COUNTED_MAX = 3  # two bits, as in the paper
_READS_TO_STAY = 2
_SMALL_SHARE = 10


class Counted(Protocol):
    """`hits` is raised by whoever reads; `spared` is how many of them no longer count here, this cache's own."""

    hits: int
    spared: int


def reads_of(cell: Counted) -> int:
    return min(cell.hits - cell.spared, READS_COUNTED_MAX)


class S3FifoCache(cachetools.Cache[str, Counted]):
    """Bounded by `maxsize` through `getsizeof`, and by `entries_max`, which `trim` enforces.

    `on_evict` is told of what had to go, not of what was deleted.
    """

    def __init__(
        self,
        *,
        entries_max: int,
        bytes_max: int,
        getsizeof: Callable[[Counted], float],
        on_evict: Callable[[str, Counted], None],
    ) -> None:
        super().__init__(bytes_max, getsizeof)
        self._entries_max = entries_max
        self._on_evict = on_evict
        self._small: OrderedDict[str, float] = OrderedDict()
        self._small_bytes = 0.0
        self._main: OrderedDict[str, None] = OrderedDict()
        self._ghost: OrderedDict[str, None] = OrderedDict()

    def __setitem__(self, key: str, cell: Counted) -> None:
        """Whoever replaces a cell gives the new one its `hits`."""
        before = self.get(key)
        super().__setitem__(key, cell)  # may evict, and look at `before` for it
        if before is not None:
            cell.spared = before.spared
        if key in self._main:
            return
        size = self.getsizeof(cell)
        if key in self._small:
            self._small_bytes += size - self._small[key]
            self._small[key] = size
            return
        cell.spared = cell.hits
        if key in self._ghost:
            del self._ghost[key]
            self._main[key] = None
        else:
            self._small[key] = size
            self._small_bytes += size

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        if key in self._main:
            del self._main[key]
        else:
            self._small_bytes -= self._small.pop(key)

    def popitem(self) -> tuple[str, Counted]:
        """Evicts one. Raises `KeyError` when empty."""
        while self._small or self._main:
            victim = self._leave_small() if self._is_small_full() or not self._main else self._leave_main()
            if victim is not None:
                cell = self[victim]
                del self[victim]
                self._on_evict(victim, cell)
                return victim, cell
        raise KeyError("nothing to evict")

    def clear(self) -> None:
        super().clear()
        for queue in (self._small, self._main, self._ghost):
            queue.clear()
        self._small_bytes = 0.0

    def _is_small_full(self) -> bool:
        small = self._small
        return (
            len(small) * _SMALL_SHARE >= self._entries_max or self._small_bytes * _SMALL_SHARE >= self.maxsize
        ) and bool(small)

    def _leave_small(self) -> str | None:
        """The oldest of the small queue, to be evicted; None when it moved on to main."""
        key = next(iter(self._small))
        cell = self[key]
        if reads_of(cell) >= _READS_TO_STAY:
            self._small_bytes -= self._small.pop(key)
            self._main[key] = None
            cell.spared = cell.hits
            return None
        self._ghost[key] = None
        while len(self._ghost) > self._entries_max * (_SMALL_SHARE - 1) // _SMALL_SHARE:
            self._ghost.popitem(last=False)
        return key

    def _leave_main(self) -> str | None:
        """The oldest of main, to be evicted; None when it got another chance."""
        key = next(iter(self._main))
        cell = self[key]
        reads = reads_of(cell)
        if not reads:
            return key
        cell.spared = cell.hits - (reads - 1)
        self._main.move_to_end(key)
        return None
