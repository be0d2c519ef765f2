"""The tiered read: L1 memory, L2 Redis, L3 the loader; validity is the change log's alone.

A read first makes sure how far behind this replica may be (`ChangeFeed.bound`); a record of any
tier is then served only if the horizon allows it, and one of L2 only with this deployment's seal.
Redis can therefore lose, delay or forge whatever it likes: a wrong record is refused like an old
one. Proof and failure matrix: decisions 0010 and 0012.

A hit of L1 is a plain call (`hits.py`).
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.cache.background import Background
from services.cache.codec import Codec
from services.cache.deps import current
from services.cache.flight import Flights
from services.cache.hits import Hits
from services.cache.horizon import Horizon
from services.cache.memory import Cell, MemoryTier
from services.cache.read import Read
from services.cache.refill import Landed, Leases, Refill, missing
from services.cache.space import Loader, Space
from services.cache.stats import Stats, Tally
from services.cache.trace import TraceEvent, Traces
from services.cache.warm import HotSet
from services.changes.levels import BOUNDED, Level
from services.changes.log import STALE_MAX_S, Bound, ChangeFeed
from services.failures import Exhausted, Timeout, Unavailable
from services.ports import ChangeReader, SecondTier

__all__ = ["Read", "TieredCache"]

_REFRESHES_MAX = 16
# What a record of before may stand in for: trouble on the way to the truth. Every other error is
# the truth.
_TROUBLE = (Unavailable, Timeout, Exhausted, OSError)


class TieredCache:
    """`get` for everything whose answer depends on the catalog; `peek` for whoever cannot wait.

    `leases` spread loads over replicas; `hot_file` is where the keys that are read most survive a
    restart. `chance` answers numbers from 0 to 1.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        horizon: Horizon,
        memory: MemoryTier,
        second: SecondTier,
        codec: Codec,
        *,
        leases: Leases | None = None,
        hot_file: Path | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.memory = memory
        self.second = second
        self._feed = feed
        self._horizon = horizon
        self._tally = Tally(memory)
        self._counts = self._tally.counts
        self._traces = Traces()
        self._refill = Refill(feed, horizon, memory, second, codec, leases, self._counts, self._traces, chance)
        self._hits = Hits(feed, horizon, memory, self._refill, self._tally, self._traces, chance)
        self._flights: Flights[Landed] = Flights()
        self._refreshes = Background(_REFRESHES_MAX)
        self._hot = HotSet(hot_file, codec) if hot_file is not None else None
        self._chance = chance
        self._clock = memory.clock
        self._find = memory.find
        self._spaces: set[Space] = set()
        memory.on_leave = self._left
        # A hit of L1, if one can be given without asking anybody; else None, and `get` knows more.
        self.peek: Callable[[Space, str], Read | None] = self._hits.peek

    async def close(self) -> None:
        self._tally.close()
        if self._hot is not None:
            await self._hot.save(self.memory)
        await self._flights.close()
        await self._refreshes.close()
        await self._refill.close()

    async def get(
        self, space: Space, key: str, loader: Loader, level: Level = BOUNDED, deps: tuple[str, ...] = ()
    ) -> Read:
        """The value of `key`. `loader` reads the truth and says with `depends_on` what it read; `deps`
        are those known before, without which no record of L2 is believed.

        What the loader raises is passed on and not kept, but for `NotFound`: with deps it is kept and
        raised again until one of them changes. Raises `Unavailable` when the loader takes too long, or
        when this replica cannot become as fresh as `level` asks. Cancelling one caller leaves the load
        to the others.
        """
        if level is BOUNDED or level.kind == "bounded":
            read = self.peek(space, key)
            if read is not None:
                return read
        bound = await self._feed.bound(level)
        if bound.stale and not space.stale_if_error:
            raise Unavailable("the database does not answer, and this is not served without it")
        cell = self._find(key)
        now_s = self._clock()
        if cell is not None and self._hits.is_good(space, key, cell, now_s):
            if now_s >= cell.refresh_s:
                self._refresh(space, key, cell, loader, deps)
            return self._given(key, cell, bound)
        self._counts.misses += 1
        self._traces.emit(key, "l1_miss")
        self._tally.note_hits_soon()
        may_be_old = level.kind == "bounded" and space.stale_if_error
        fallback = cell if may_be_old and cell is not None and cell.space == space else None
        return await self._loaded(space, key, loader, deps, bound, fallback)

    def invalidate(self, key: str) -> None:
        """Forgets `key` here and in L2; a load under way is left to its waiters."""
        self.memory.drop(key)
        for space in self._spaces:
            name = self._refill.l2_key(space, key)
            self._flights.doom(name)
            if space.l2:
                self._refill.withdraw(name)
        self._traces.emit(key, "invalidated")

    def clear(self) -> None:
        """Forgets everything here; what L2 has is validated as ever. A change of `*` clears every tier
        of every replica."""
        self._tally.collect()
        self.memory.clear()
        self._flights.doom_all()

    def warm_up(self, history: ChangeReader) -> None:
        """Fetches the last run's hot set from L2, in the background; `history` tells what of it still holds."""
        if self._hot is not None:
            self._refreshes.start(self._warmed(self._hot, history))

    @contextmanager
    def trace(self, key: str, callback: Callable[[TraceEvent], None]) -> Iterator[None]:
        """Tells `callback` what happens to `key` in this replica. Raises `Exhausted`."""
        with self._traces.follow(key, callback):
            cell = self._find(key)
            if cell is not None:
                cell.good_until_s = -math.inf  # so that the next hit is seen
            yield

    @property
    def stats(self) -> Stats:
        """The figures of this moment; a copy."""
        return self._tally.snapshot()

    def _given(self, key: str, cell: Cell, bound: Bound) -> Read:
        """A good cell's record under a bound that was waited for."""
        if bound.stale:
            self._tally.note_stale("log")
        else:
            cell.sent_s = max(cell.sent_s, self._clock() - bound.lag_s)
        self._hits.hit(key, cell)
        if cell.record.negative:
            self._counts.negative_hits += 1
            raise missing(cell.record)
        return self._answer(Landed(cell.record, "l1"), bound, "log" if bound.stale else None)

    async def _loaded(
        self, space: Space, key: str, loader: Loader, deps: tuple[str, ...], bound: Bound, fallback: Cell | None
    ) -> Read:
        self._spaces.add(space)
        name = self._refill.l2_key(space, key)
        while True:
            if name in self._flights:
                self._traces.emit(key, "joined")
                if self._refill.is_overtaken(name):
                    self._flights.doom(name)
            soft_s = space.soft_timeout_s if self._may_stand_in(fallback) else None
            limit = asyncio.timeout(soft_s)
            try:
                async with limit:
                    landed = await self._flights.load(
                        name, lambda: self._refill.load(space, key, loader, deps), keep=soft_s is not None
                    )
            except _TROUBLE:
                too_slow = limit.expired()
                stand_in = self._stand_in(key, fallback, "slow" if too_slow else "error")
                if stand_in is not None:
                    return stand_in
                if not too_slow:
                    raise
                fallback = None  # it grew too old meanwhile: wait for the load
                continue
            # The load may have begun before this call and missed a change that this caller knows of, or
            # have read a history that has ended. One that begins now cannot.
            is_of_now = landed.record.epoch == self._feed.position.epoch
            if is_of_now and (landed.record.asof >= bound.asof or self._horizon.allows(landed.record)):
                if landed.record.negative:
                    self._note(landed)
                    raise missing(landed.record)
                return self._answer(landed, bound, "log" if bound.stale else None)

    def _answer(self, landed: Landed, bound: Bound, stale_reason: str | None) -> Read:
        self._note(landed, is_stale=stale_reason is not None)
        return Read(landed.record.value, landed.tier, bound, stale_reason)

    def _note(self, landed: Landed, *, is_stale: bool = False) -> None:
        """Hands the deps on to the load that this read is a part of."""
        capture = current.get()
        if capture is not None:
            capture.deps.update(landed.record.deps)
            capture.is_stale = capture.is_stale or is_stale

    def _may_stand_in(self, cell: Cell | None) -> bool:
        if cell is None or cell.record.negative:
            return False
        return self._clock() - cell.sent_s <= STALE_MAX_S

    def _stand_in(self, key: str, cell: Cell | None, reason: str) -> Read | None:
        """The record of before, labelled, unless it was last known to be good too long ago."""
        if cell is None or not self._may_stand_in(cell):
            return None
        self._tally.note_stale(reason)
        self._traces.emit(key, "stale_served", reason=reason, asof=cell.record.asof)
        bound = Bound(cell.record.asof, round(self._clock() - cell.sent_s, 3), stale=True)
        return self._answer(Landed(cell.record, "l1"), bound, reason)

    def _refresh(self, space: Space, key: str, cell: Cell, loader: Loader, deps: tuple[str, ...]) -> None:
        """Loads a record anew that is still good, once."""
        if self._refreshes.is_full:
            return
        cell.refresh_s = math.inf
        self._counts.refreshes += 1
        self._traces.emit(key, "refresh_started")
        self._refreshes.start(self._refreshed(space, key, loader, deps))

    async def _refreshed(self, space: Space, key: str, loader: Loader, deps: tuple[str, ...]) -> None:
        name = self._refill.l2_key(space, key)
        try:
            await self._flights.load(name, lambda: self._refill.load(space, key, loader, deps, anew=True))
        except _TROUBLE:
            return  # the record is good until its end; the next miss will tell

    async def _warmed(self, hot: HotSet, history: ChangeReader) -> None:
        found = await hot.fetch(self.second, self._refill.l2_key)
        asof = min((stored.record.asof for *_, stored in found if stored.record.deps), default=None)
        if asof is not None:
            await self._horizon.look_back(history, asof)
        for space, key, reads, stored in found:
            if self.memory.peek(key) is None and self._horizon.allows(stored.record):
                self._refill.keep_found(space, key, stored)
                self._counts.warmed += 1
                cell = self._find(key)
                if cell is not None:
                    cell.hits = cell.counted = cell.hits_at_load = reads

    def _left(self, key: str, cell: Cell, evicted: bool) -> None:
        self._tally.note_hits(cell)
        if evicted:
            self._traces.emit(key, "evicted", hits=cell.hits)
