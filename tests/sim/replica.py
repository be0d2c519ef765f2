"""A replica of the simulation: the real feed, horizon, memory and tiered cache, wired as `gateway.wiring` does."""

from typing import NamedTuple

from services.cache.audit import Audits
from services.cache.codec import Codec
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.space import Space
from services.cache.tiered import TieredCache
from services.changes.levels import Level
from services.changes.log import ChangeFeed
from tests.sim.world import LIST, SECRET, Answer, Opener, Outside

# Longer than a simulation: what ends a record here is the log alone.
SPACE = Space("sim", ttl_s=60.0)


# Every hit, so that the four seconds of a run are full of audits.
AUDIT_ONE_IN = 1


class Parts(NamedTuple):
    """The classes to build from; a mutant is a copy in which one line differs."""

    feed: type[ChangeFeed] = ChangeFeed
    horizon: type[Horizon] = Horizon
    memory: type[MemoryTier] = MemoryTier
    cache: type[TieredCache] = TieredCache
    codec: type[Codec] = Codec
    audits: type[Audits] = Audits


class HorizonReplica:
    def __init__(self, host: str, feed: ChangeFeed, cache: TieredCache, outside: Outside) -> None:
        self.host = host
        self._feed = feed
        self._cache = cache
        self._database = outside.database

    async def read(self, key: str, level: Level) -> Answer:
        deps = ("topic:skills",) if key == LIST else (f"skill:{key}",)

        read = await self._cache.get(SPACE, key, lambda: self._database.load(key), level=level, deps=deps)
        return Answer(read.value, read.tier, read.bound.stale, read.bound.lag_s)

    async def wrote(self, key: str, seq: int) -> None:  # noqa: ARG002  # the log says what it was
        self._feed.committed(seq)

    def hear(self, key: str, seq: int) -> None:  # noqa: ARG002  # the same
        self._feed.hinted(seq)


def horizon_replicas(parts: Parts = Parts()) -> Opener:  # noqa: B008  # immutable
    async def open_one(outside: Outside, host: str) -> HorizonReplica:
        clock = outside.loop.time
        position = await outside.database.head()
        feed = parts.feed(outside.database, position, interval_s=0.15, clock=clock)
        horizon = parts.horizon(position.epoch, position.seq)
        memory = parts.memory(entries_max=100, bytes_max=1024 * 1024, clock=clock)
        cache = parts.cache(feed, horizon, memory, outside.second, parts.codec(SECRET), chance=outside.random.random)
        feed.follow(horizon)
        feed.start()
        audits = parts.audits(cache, memory, feed, AUDIT_ONE_IN, choose=outside.random)
        audits.on_stale = lambda key, record: outside.history.audited(host, key, record.asof, clock())
        audits.start()
        return HorizonReplica(host, feed, cache, outside)

    return open_one
