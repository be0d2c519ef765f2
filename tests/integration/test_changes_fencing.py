"""A database that was restored: nothing of the history that is gone is believed, by nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from notifier.events import Event, Reset, Viewer
from notifier.notifier import UnifiedNotifier
from services.audit.chain import Seal, seal
from services.cache.deps import depends_on
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.redis import NoSecondTier
from services.cache.space import Space
from services.cache.tiered import TieredCache
from services.changes.fencing import snapshot_after, snapshot_at_start
from services.changes.levels import parse_level
from services.changes.log import ChangeFeed
from services.changes.position_file import PositionFile
from services.changes.retention import LogRetention
from services.clock import utc_now
from services.failures import Conflict, Unavailable
from services.ports import Position
from services.skills.tools import ToolView
from services.skills.view import CatalogView
from services.storage.audit import SqlAudit
from services.storage.sql import SqlStore
from tests.support.cached import CODEC
from tests.support.chaos import BrokenSink
from tests.support.drafts import assert_linked, draft, tool
from tests.support.listed_log import RecordingSink
from tests.support.restored import back_up, restore

SPACE = Space("test", jitter=0.0)
pytestmark = pytest.mark.anyio

EVERYBODY = Viewer(owners=None)


class FollowingReplica:
    """A store and what follows its log; the feed tails when the test says so."""

    def __init__(self, store: SqlStore, feed: ChangeFeed, view: CatalogView) -> None:
        self.store = store
        self.feed = feed
        self.view = view
        self.tools = ToolView(view)
        self.horizon = Horizon(feed.position.epoch, feed.position.seq)
        self.cache = TieredCache(feed, self.horizon, MemoryTier(entries_max=9, bytes_max=10**6), NoSecondTier(), CODEC)
        self.notifier = UnifiedNotifier(store, feed.position, utc_now=utc_now)
        self.sink = RecordingSink()
        for sink in (view, self.tools, self.horizon, BrokenSink(), self.notifier, self.sink):
            feed.follow(sink)

    async def publish(self, text: str) -> int:
        (published,) = await self.store.publish([draft(text=text, tools=[tool(text)])])
        await self.feed.tail()
        return published.seq

    async def read(self) -> str:
        """The description of the skill, through the cache."""

        async def load() -> bytes:
            depends_on("skill:main/alpha")
            (skill,) = (await self.store.snapshot()).skills
            assert skill.active is not None
            return skill.active.description.encode()

        return (await self.cache.get(SPACE, "alpha", load, deps=("skill:main/alpha",))).value.decode()


async def following(stack: AsyncExitStack, folder: Path) -> FollowingReplica:
    store = await SqlStore.open(f"sqlite:///{folder}/store.db")
    stack.push_async_callback(store.close)
    snapshot = await store.snapshot()
    feed = ChangeFeed(store, snapshot.position, interval_s=0.15, begin_again=partial(snapshot_after, store))
    stack.push_async_callback(feed.close)
    replica = FollowingReplica(store, feed, CatalogView(snapshot))
    stack.push_async_callback(replica.cache.close)
    stack.push_async_callback(replica.notifier.close)
    return replica


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def test_a_restore_under_a_running_replica_ends_its_history(stack: AsyncExitStack, tmp_path: Path) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    kept = back_up(tmp_path / "store.db", tmp_path / "backup.db")
    await replica.publish("two")
    before = replica.feed.position
    assert await replica.read() == "alpha as of two"
    stream = replica.notifier.subscribe(EVERYBODY, ["skills"])
    stack.callback(stream.close)

    restore(tmp_path / "store.db", kept)
    await replica.feed.tail()

    now = replica.feed.position
    assert now.epoch != before.epoch
    assert now.seq == 2 < before.seq
    assert replica.sink.restarts == [now]
    assert await replica.read() == "alpha as of one"
    assert [each.spec.name for each in replica.tools.listed(lambda _: True)] == ["one"]
    async with asyncio.timeout(5):
        (frame,) = await stream.next_batch()
    assert isinstance(frame, Reset)
    assert (frame.reason, frame.position) == ("epoch", now.id)

    await replica.publish("three")
    assert await replica.read() == "alpha as of three"
    async with asyncio.timeout(5):
        (frame,) = await stream.next_batch()
    assert isinstance(frame, Event)
    assert_linked(await replica.store.tail(0, 100), now.epoch)


async def test_another_history_of_the_same_length_is_noticed(stack: AsyncExitStack, tmp_path: Path) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    kept = back_up(tmp_path / "store.db", tmp_path / "backup.db")
    await replica.publish("two")
    assert await replica.read() == "alpha as of two"
    before = replica.feed.position

    restore(tmp_path / "store.db", kept)
    other = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    stack.push_async_callback(other.close)
    await other.publish([draft(text="other", tools=[tool("other")])])
    assert (await other.head()).seq == before.seq
    await replica.feed.tail()

    assert (replica.feed.position.seq, replica.feed.position.epoch != before.epoch) == (before.seq, True)
    assert await replica.read() == "alpha as of other"


async def test_a_record_of_a_load_that_outlived_its_history_is_not_kept(stack: AsyncExitStack, tmp_path: Path) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    kept = back_up(tmp_path / "store.db", tmp_path / "backup.db")
    await replica.publish("two")
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> bytes:
        depends_on("skill:main/alpha")
        epoch = replica.feed.position.epoch
        loading.set()
        await go_on.wait()
        return epoch.encode()

    slow = asyncio.create_task(replica.cache.get(SPACE, "x", load, deps=("skill:main/alpha",)))
    await loading.wait()
    restore(tmp_path / "store.db", kept)
    await replica.feed.tail()
    late = asyncio.create_task(replica.cache.get(SPACE, "x", load, deps=("skill:main/alpha",)))
    for _ in range(3):
        await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(5):
        await slow
        assert (await late).value.decode() == replica.feed.position.epoch


async def test_of_replicas_that_notice_at_once_one_fences_and_all_agree(stack: AsyncExitStack, tmp_path: Path) -> None:
    replicas = [await following(stack, tmp_path) for _ in range(3)]
    await replicas[0].publish("one")
    kept = back_up(tmp_path / "store.db", tmp_path / "backup.db")
    await replicas[0].publish("two")
    for replica in replicas:
        await replica.feed.tail()
    restore(tmp_path / "store.db", kept)

    await asyncio.gather(*(replica.feed.tail() for replica in replicas))
    for replica in replicas:
        await replica.feed.tail()

    assert len({replica.feed.position for replica in replicas}) == 1
    assert [len(replica.sink.restarts) for replica in replicas] == [1, 1, 1]
    await replicas[1].publish("three")
    await replicas[2].feed.tail()
    assert await replicas[2].read() == "alpha as of three"
    assert [len(replica.sink.restarts) for replica in replicas] == [1, 1, 1]


async def test_a_place_of_the_old_history_is_refused_and_one_of_the_new_is_not(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    kept = back_up(tmp_path / "store.db", tmp_path / "backup.db")
    await replica.publish("two")
    old = replica.feed.position
    await replica.feed.bound(parse_level(f"session={old.id}"))
    restore(tmp_path / "store.db", kept)

    await replica.feed.tail()
    with pytest.raises(Conflict) as refused:
        await replica.feed.bound(parse_level(f"session={old.id}"))
    assert refused.value.code == "unknown_epoch"

    now = replica.feed.position
    assert (await replica.feed.bound(parse_level(f"session={now.id}"))).asof == now.seq
    forged = f"{now.epoch}-1-00000000"
    with pytest.raises(Conflict):
        await replica.feed.bound(parse_level(f"session={forged}"))
    with pytest.raises(Unavailable) as early:
        await replica.feed.bound(parse_level(f"session={now.seq + 1}"))
    assert early.value.code == "not_yet"


async def test_a_restore_between_two_runs_is_noticed_by_the_position_that_was_kept(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    kept_position = PositionFile(tmp_path / "position.json")
    assert kept_position.read() is None
    async with AsyncExitStack() as run:
        replica = await following(run, tmp_path)
        kept_position.start(replica.feed)
        run.push_async_callback(kept_position.close)
        await replica.publish("one")
        backup = back_up(tmp_path / "store.db", tmp_path / "backup.db")
        await replica.publish("two")
        newest = replica.feed.position
    assert PositionFile(tmp_path / "position.json").read() == newest

    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    stack.push_async_callback(store.close)
    intact = await snapshot_at_start(store, newest)
    assert intact.position == newest
    restore(tmp_path / "store.db", backup)
    fenced = await snapshot_at_start(store, newest)
    assert fenced.position.epoch != newest.epoch
    assert (await snapshot_at_start(store, fenced.position)).position == fenced.position
    restore(tmp_path / "store.db", backup)
    again = await snapshot_at_start(store, fenced.position)
    assert again.position.epoch not in (newest.epoch, fenced.position.epoch), "an epoch that a backup brought back"


async def test_a_replica_behind_the_oldest_row_that_is_kept_begins_again_in_the_same_history(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    writer, behind = [await following(stack, tmp_path) for _ in range(2)]
    await writer.publish("one")
    await behind.feed.tail()
    stream = behind.notifier.subscribe(EVERYBODY, ["skills"])
    stack.callback(stream.close)
    for number in range(10):
        await writer.publish(f"text {number}")
    head = writer.feed.position

    assert await writer.store.trim(3, 4, sealed=99) == 4
    assert [row.seq for row in await writer.store.tail(0, 2)] == [5, 6]
    while await writer.store.trim(3, 4, sealed=99):
        pass
    await asyncio.gather(behind.feed.tail(), writer.feed.tail())

    assert [row.seq for row in await writer.store.tail(0, 9)] == [head.seq - 2, head.seq - 1, head.seq]
    assert (behind.feed.position, behind.sink.restarts) == (head, [head])
    assert writer.sink.restarts == [], "what is up to date has missed nothing"
    assert await behind.read() == "alpha as of text 9"
    async with asyncio.timeout(5):
        (frame,) = await stream.next_batch()
    assert isinstance(frame, Reset)
    assert (frame.reason, frame.position) == ("trimmed", head.id)
    assert (await snapshot_at_start(writer.store, Position(head.epoch, 1, "x"))).position == head
    assert await writer.store.trim(0, 100, sealed=99) == 2, "the newest row always stays"


async def test_one_of_the_replicas_trims_the_log(stack: AsyncExitStack, tmp_path: Path) -> None:
    replica = await following(stack, tmp_path)
    for number in range(10):
        await replica.publish(f"text {number}")
    audit = SqlAudit(replica.store)
    await audit.append_audit(seal(await replica.store.tail(0, 100), None, utc_now(), Seal()))
    for name in ("a", "b"):
        retention = LogRetention(replica.store, audit, name, 5, look_s=0.02)
        retention.start()
        stack.push_async_callback(retention.close)
    async with asyncio.timeout(5):
        while len(await replica.store.tail(0, 100)) != 5:  # noqa: ASYNC110  # no event for what is not there
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"position": 7}', b'{"position": "e-1"}', b"\xff"])
async def test_a_damaged_position_file_keeps_nobody_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "position.json").write_bytes(content)
    assert PositionFile(tmp_path / "position.json").read() is None


async def test_fencing_compares_before_it_sets(stack: AsyncExitStack, tmp_path: Path) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    first = (await replica.store.head()).epoch
    fenced = await replica.store.fence(first)
    assert fenced.epoch != first
    assert await replica.store.fence(first) == fenced
    assert fenced == Position(fenced.epoch, fenced.seq, (await replica.store.tail(fenced.seq - 1, 1))[0].id)


async def test_without_a_way_to_begin_again_a_lost_history_counts_as_no_answer(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    replica = await following(stack, tmp_path)
    await replica.publish("one")
    alone = ChangeFeed(replica.store, Position("e0", 9, "e0-9-00000000"), interval_s=1)
    with pytest.raises(Unavailable):
        await alone.tail()
    await alone.close()
