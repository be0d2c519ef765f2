"""A replica's cache on a log in a list, with a clock that stands: what tests of the tiers share."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from services.cache.codec import Codec
from services.cache.deps import depends_on
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier, Policy
from services.cache.read import Read
from services.cache.redis import NoSecondTier
from services.cache.refill import Leases
from services.cache.space import Space
from services.cache.tiered import TieredCache
from services.changes.levels import BOUNDED, Level
from services.changes.log import ChangeFeed
from tests.support.chaos import TroubledReader, WatchedTier
from tests.support.listed_log import EPOCH, ListedLog, StoppedClock

CODEC = Codec(b"the tests share this key")
KEY, DEP, TTL_S = "detail:main/a", "skill:main/a", 60.0
SPACE = Space("detail", ttl_s=TTL_S, jitter=0.0)
L2_KEY = f"{EPOCH}:{SPACE.name}:{KEY}"


class Truth:
    """The loader: answers the log's head as it was when the load began, late if `gate` is clear; takes
    `takes_s` of the standing clock, and raises `error`, if given."""

    def __init__(self, log: ListedLog, clock: StoppedClock) -> None:
        self._log = log
        self._clock = clock
        self.loads = 0
        self.during: Callable[[], None] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.takes_s = 0.0
        self.error: Exception | None = None

    async def __call__(self) -> bytes:
        self.loads += 1
        depends_on(DEP)
        seen = len(self._log.rows)
        self.during()
        await self.gate.wait()
        self._clock.now_s += self.takes_s
        if self.error is not None:
            raise self.error
        return b"as of %d" % seen


class CachedReplica(NamedTuple):
    log: ListedLog
    reader: TroubledReader
    clock: StoppedClock
    feed: ChangeFeed
    horizon: Horizon
    memory: MemoryTier
    second: WatchedTier
    cache: TieredCache
    truth: Truth

    async def read(self, space: Space = SPACE, level: Level = BOUNDED) -> tuple[bytes, str]:
        read = await self.get(space, level)
        return read.value, read.tier

    async def get(self, space: Space = SPACE, level: Level = BOUNDED) -> Read:
        return await self.cache.get(space, KEY, self.truth, level=level, deps=(DEP,))

    async def pass_time(self, seconds: float) -> None:
        """Moves the clock, and follows the log over it, as a feed that runs would."""
        self.clock.now_s += seconds
        if not self.reader.failing:
            await self.feed.tail()


@asynccontextmanager
async def cached_replica(
    *,
    chance: Callable[[], float] = lambda: 0.0,
    hot_file: Path | None = None,
    policy: Policy = "s3fifo",
    entries_max: int = 100,
    second: WatchedTier | None = None,
    leases: Leases | None = None,
    log: ListedLog | None = None,
) -> AsyncIterator[CachedReplica]:
    """Follows the log from its head on; an empty one if none is given."""
    log, clock = log or ListedLog(), StoppedClock()
    reader = TroubledReader(log)
    feed = ChangeFeed(reader, await log.head(), interval_s=3600, clock=clock)
    horizon = Horizon(EPOCH, len(log.rows))
    feed.follow(horizon)
    memory = MemoryTier(entries_max=entries_max, bytes_max=4 * 1024 * 1024, policy=policy, clock=clock)
    second = second or WatchedTier(NoSecondTier())
    cache = TieredCache(feed, horizon, memory, second, CODEC, leases=leases, hot_file=hot_file, chance=chance)
    yield CachedReplica(log, reader, clock, feed, horizon, memory, second, cache, Truth(log, clock))
    await cache.close()
    await feed.close()


async def settled() -> None:
    """Lets everything run that waits for nothing but its turn."""
    for _ in range(20):
        await asyncio.sleep(0)
