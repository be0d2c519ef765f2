"""A reload is in the log for the audit alone: nobody who follows the log takes it for a change of the catalog."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from gateway.mcp.answers import Answers
from gateway.mcp.notices import Notices, Reach
from gateway.mcp.push import McpPush
from notifier.events import Event, Viewer
from notifier.notifier import UnifiedNotifier
from services.cache.codec import Record
from services.cache.horizon import Horizon
from services.changes.log import ChangeFeed
from services.clock import utc_now
from services.ports import ReloadKind
from services.runs.runs import Runs
from services.skills.compiled import CompiledLists
from services.skills.tools import ToolView
from services.skills.view import CatalogView
from services.storage.sql import SqlStore
from tests.support.drafts import draft, tool

pytestmark = pytest.mark.anyio

KINDS: tuple[ReloadKind, ...] = ("reload.folder", "reload.skill", "cache.invalidated")
DEPS = ("skill:main/alpha", "tools:main/alpha", "topic:skills", "topic:tools", "topic:solutions")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    await opened.publish([draft(tools=[tool("run")])])
    yield opened
    await opened.close()


async def reload_all(store: SqlStore, feed: ChangeFeed) -> None:
    before = feed.applied
    for kind in KINDS:
        for skill_id in ("main/alpha", None):
            await store.note_reload(kind, skill_id, "ann", {"changed": 1})
    await feed.tail()
    assert feed.applied == before + 2 * len(KINDS)


async def test_no_revision_moves_and_nothing_that_is_kept_is_dropped(store: SqlStore) -> None:
    snapshot = await store.snapshot()
    epoch, seq, _ = snapshot.position
    feed = ChangeFeed(store, snapshot.position, interval_s=60)
    view = CatalogView(snapshot)
    tools, lists, horizon = ToolView(view), CompiledLists(), Horizon(epoch, 0)
    for sink in (view, tools, lists, horizon):
        feed.follow(sink)
    answers = Answers(feed, view)
    lists.get("everybody", lambda: ["run"])
    record = Record(epoch, seq, DEPS, b"")
    before = (view.revision, tools.revision, answers.state(""), answers.state("skill://main/alpha/SKILL.md"))

    await reload_all(store, feed)

    after = (view.revision, tools.revision, answers.state(""), answers.state("skill://main/alpha/SKILL.md"))
    assert after == before
    assert lists.hit("everybody")
    assert horizon.allows(record)
    await feed.close()


async def test_no_client_is_told(store: SqlStore) -> None:
    position = await store.head()
    feed = ChangeFeed(store, position, interval_s=60)
    push, told = McpPush(), Notices()
    said = asyncio.Event()

    def tell(notices: Notices) -> None:
        for (_, reaches), (_, more) in zip(told.kinds(), notices.kinds(), strict=True):
            reaches |= more
        said.set()

    async def end() -> None:
        pass

    push.tell_sessions_with(tell, end)
    push.start(cast(Runs, None), [])  # asked for tasks alone
    notifier = UnifiedNotifier(store, position, utc_now=utc_now)
    stream = notifier.subscribe(Viewer(owners=None), ["skills", "tools", "solutions"])
    for sink in (push, notifier):
        feed.follow(sink)

    await reload_all(store, feed)
    await store.publish([draft("beta", owner="zed", visibility="private")])
    await feed.tail()
    async with asyncio.timeout(5):
        await said.wait()
        (frame, *others) = await stream.next_batch()

    assert (told.resources, told.tools, told.prompts) == ({Reach("zed", "private")}, set(), set())
    assert isinstance(frame, Event)
    assert (frame.topic, frame.kind, others) == ("skills", "skill.published", [])
    stream.close()
    await push.close()
    await notifier.close()
    await feed.close()
