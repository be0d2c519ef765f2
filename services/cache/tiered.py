"""The tiered read: L1 memory, L2 Redis, L3 the loader; validity is the change log's alone.

A read under the bounded level first asks the feed how far behind this replica may be
(`ChangeFeed.bound`); a record of any tier is then served only if the horizon allows it. Redis can
therefore lose, delay or forge whatever it likes: a wrong record is refused like an old one.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from services import metrics
from services.cache import codec
from services.cache.codec import Record
from services.cache.flight import Flights
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.trace import TraceEvent, Traces
from services.changes.levels import BOUNDED, Level
from services.changes.log import Bound, ChangeFeed
from services.ports import SecondTier

L2_VALUE_BYTES_MAX = 64 * 1024
_RELOADS_MAX = 2


class Read(NamedTuple):
    """`tier` is l1, l2 or l3 (loaded now); `bound` says how old the answer may be."""

    value: bytes
    tier: str
    bound: Bound


class Stats(msgspec.Struct):
    """Counters since start."""

    l1_hits: int = 0
    l2_hits: int = 0
    loads: int = 0
    refused: int = 0


class TieredCache:
    """`get_or_load` for everything whose answer depends on the catalog."""

    def __init__(
        self,
        feed: ChangeFeed,
        horizon: Horizon,
        memory: MemoryTier,
        second: SecondTier,
    ) -> None:
        self._feed = feed
        self._horizon = horizon
        self._flights: Flights[tuple[Record, str]] = Flights()
        self._traces = Traces()
        self.memory = memory
        self.second = second
        self.stats = Stats()

    async def close(self) -> None:
        await self._flights.close()

    async def get_or_load(
        self,
        key: str,
        deps: tuple[str, ...],
        ttl_s: float,
        loader: Callable[[], Awaitable[bytes]],
        level: Level = BOUNDED,
    ) -> Read:
        """The value of `key`, as fresh as `level` asks. `loader` reads the truth; what it raises is
        passed on and not cached.

        Cancelling one caller leaves the load to the others.
        """
        bound = await self._feed.bound(level)
        record = self.memory.peek(key)
        if record is not None and self._horizon.allows(record):
            self.stats.l1_hits += 1
            metrics.cache_reads.labels("l1").inc()
            self._traces.emit(key, "l1_hit", asof=record.asof)
            return Read(record.value, "l1", bound)
        if record is not None:
            self._count_refused("l1")
            self._traces.emit(key, "l1_refused", asof=record.asof, deps=record.deps)
            self.memory.drop(key)
            self._flights.doom(key)
        else:
            self._traces.emit(key, "l1_miss")
        while True:
            record, tier = await self._flights.load(key, lambda: self._load(key, deps, ttl_s, loader))
            # The load may have begun before this call and missed a change that this caller knows of, or
            # have read a history that has ended. One that begins now cannot.
            is_of_now = record.epoch == self._feed.position.epoch
            if is_of_now and (record.asof >= bound.asof or self._horizon.allows(record)):
                return Read(record.value, tier, bound)

    async def _load(
        self, key: str, deps: tuple[str, ...], ttl_s: float, loader: Callable[[], Awaitable[bytes]]
    ) -> tuple[Record, str]:
        data = await self.second.get(key)
        found = codec.decode(data) if data is not None else None
        # Its deps must be ours: another release may have known of fewer.
        if found is not None and found.deps == deps and self._horizon.allows(found):
            self.stats.l2_hits += 1
            metrics.cache_reads.labels("l2").inc()
            self._traces.emit(key, "l2_hit", asof=found.asof)
            self.memory.keep(key, found, ttl_s)
            return found, "l2"
        if data is not None:
            self._count_refused("l2")
        for _ in range(_RELOADS_MAX):
            # Before the load's own snapshot, never after: a change that the load did not see
            # must have a larger seq than the record claims.
            asof = self._feed.applied
            record = Record(self._feed.position.epoch, asof, deps, await loader())
            self.stats.loads += 1
            metrics.cache_reads.labels("l3").inc()
            self._traces.emit(key, "load_finished", asof=asof)
            if self._horizon.allows(record):
                self.memory.keep(key, record, ttl_s)
                if len(record.value) <= L2_VALUE_BYTES_MAX:
                    await self.second.put(key, codec.encode(record), ttl_s)
                break
        return record, "l3"

    def invalidate(self, key: str) -> None:
        """Forgets `key` here; a load under way is left to its waiters."""
        self.memory.drop(key)
        self._flights.doom(key)
        self._traces.emit(key, "invalidated")

    def clear(self) -> None:
        """Forgets everything here."""
        self.memory.clear()
        self._flights.doom_all()

    @contextmanager
    def trace(self, key: str, callback: Callable[[TraceEvent], None]) -> Iterator[None]:
        """Tells `callback` what happens to `key` in this replica. Raises `Exhausted`."""
        with self._traces.follow(key, callback):
            yield

    def _count_refused(self, tier: str) -> None:
        self.stats.refused += 1
        metrics.cache_refused.labels(tier).inc()
