"""A hit of L1: a plain call that compares a few numbers, and the closer look when one has moved.

What a hit has to compare is folded into two numbers of the cell: until when it is good (its life,
its refresh, the feed's horizon, whichever ends first), and the revision of the horizon it was last
checked at. While both hold, nothing it depends on has changed.
"""

import math
from collections.abc import Callable

from services import metrics
from services.cache.deps import current
from services.cache.horizon import Horizon
from services.cache.memory import Cell, MemoryTier
from services.cache.read import HitRead, Read
from services.cache.refill import Refill, early
from services.cache.space import Space
from services.cache.stats import Tally
from services.cache.trace import Traces
from services.changes.log import DELTA_S, ChangeFeed


class Hits:
    """Judges the cells of L1. `peek` answers one that can be given without asking anybody, else None."""

    def __init__(
        self,
        feed: ChangeFeed,
        horizon: Horizon,
        memory: MemoryTier,
        refill: Refill,
        tally: Tally,
        traces: Traces,
        chance: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._horizon = horizon
        self._memory = memory
        self._refill = refill
        self._tally = tally
        self._traces = traces
        self._chance = chance
        self._clock = memory.clock
        self.peek: Callable[[Space, str], Read | None] = self._peeking()

    def is_good(self, space: Space, key: str, cell: Cell, now_s: float) -> bool:
        """Whether the log allows the record and its time is not up; a hot one's is prolonged first."""
        if cell.space is not space:
            if cell.space != space:
                return False
            cell.space = space  # of the run before
        if cell.revision != self._horizon.revision:
            if not self._horizon.allows(cell.record):
                self._refuse(key, cell)
                return False
            cell.revision = self._horizon.revision
        if now_s >= min(cell.refresh_s, cell.until_s) and cell.is_hot:
            self._prolong(space, key, cell, now_s)
        return now_s < cell.until_s

    def hit(self, key: str, cell: Cell) -> None:
        cell.hits += 1
        self._memory.touched(key)
        capture = current.get()
        if capture is not None:
            capture.deps.update(cell.record.deps)
        self._traces.emit(key, "l1_hit", asof=cell.record.asof, hits=cell.hits)
        self._tally.note_hits_soon()

    def _peeking(self) -> Callable[[Space, str], Read | None]:
        """`peek` as a closure: a method's look-ups on `self` would make it a third slower (145 ns against
        220, tests/bench/test_cache_l1.py, 2026-11)."""
        find, clock, horizon, checked = self._memory.find, self._memory.clock, self._horizon, self._checked

        def peek(space: Space, key: str) -> Read | None:
            cell = find(key)
            if cell is None:
                return None
            now_s = clock()
            if now_s < cell.good_until_s and cell.revision == horizon.settled and cell.space is space:
                cell.hits += 1
                return cell.read
            return checked(space, key, cell, now_s)

        return peek

    def _checked(self, space: Space, key: str, cell: Cell, now_s: float) -> Read | None:
        """`peek` past what a cell knows by itself; leaves it good for further hits."""
        feed = self._feed
        if now_s >= feed.horizon_s:
            return None
        if (
            cell.read is not None
            and cell.good_until_s != -math.inf
            and cell.revision == self._horizon.settled
            and cell.space is space
            and now_s < cell.until_s
            and now_s < cell.refresh_s
        ):
            # Only the horizon has moved on, as it does twice a second for every cell there is.
            cell.sent_s = cell.read.sent_s = feed.horizon_s - DELTA_S
            cell.good_until_s = min(cell.until_s, cell.refresh_s, feed.horizon_s)
            cell.hits += 1
            self._tally.note_hits_soon()
            return cell.read
        if not self.is_good(space, key, cell, now_s):
            return None
        if cell.record.negative or now_s >= cell.refresh_s:
            return None
        cell.sent_s = feed.horizon_s - DELTA_S
        if cell.read is None or cell.read.asof != feed.applied:
            cell.read = HitRead(cell.record.value, feed, self._clock)
        cell.read.sent_s = cell.sent_s
        if self._memory.policy == "s3fifo" and key not in self._traces:
            cell.good_until_s = min(cell.until_s, cell.refresh_s, feed.horizon_s)
        self.hit(key, cell)
        return cell.read

    def _prolong(self, space: Space, key: str, cell: Cell, now_s: float) -> None:
        """A record that is read often need not be loaded again: the log would have refused it."""
        until_s = min(cell.loaded_s + space.ttl_hot_s, now_s + space.ttl_s)
        if cell.is_pinned or cell.record.negative or until_s <= cell.until_s or now_s >= until_s:
            return
        cell.until_s = until_s
        cell.refresh_s = until_s - early(cell.record.load_s, self._chance)
        self._tally.counts.prolonged += 1
        if space.l2:
            self._refill.offer(self._refill.l2_key(space, key), key, cell.record, until_s - now_s)

    def _refuse(self, key: str, cell: Cell) -> None:
        cell.good_until_s = -math.inf
        if not cell.is_refused:
            cell.is_refused = True
            self._tally.counts.refused += 1
            metrics.cache_refused.labels("l1").inc()
            self._traces.emit(key, "l1_refused", asof=cell.record.asof, deps=cell.record.deps)
