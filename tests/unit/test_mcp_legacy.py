"""Sessions of before 2026-07-28: each is told each thing, and none waits for another that does not read."""

import asyncio
from typing import Any, cast

import pytest
from mcp.server.session import ServerSession

from gateway.mcp import uris
from gateway.mcp.notices import EVERYONE, Notices
from gateway.mcp.sdk.legacy import WATCHED_MAX, LegacySessions
from notifier.events import Viewer

pytestmark = pytest.mark.anyio
FILE = "skill://main/one/references/a.md"
PINNED = "skill://main/@2/one/SKILL.md"
ALL = Viewer(owners=None)


class Connection:
    """Takes notices down while `reads` is set, else sending waits."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def _take(self, what: str) -> None:
        await self.reads.wait()
        self.told.append(what)

    async def send_tool_list_changed(self) -> None:
        await self._take("tools")

    async def send_prompt_list_changed(self) -> None:
        await self._take("prompts")

    async def send_resource_list_changed(self) -> None:
        await self._take("resources")

    async def send_resource_updated(self, uri: str) -> None:
        await self._take(uri)


class Gone(Connection):
    async def _take(self, what: str) -> None:
        raise ConnectionResetError(what)


class Session:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection


def begun(sessions: LegacySessions, connection: Connection) -> ServerSession:
    session = cast(ServerSession, cast(Any, Session(connection)))
    sessions.add(session, ALL)
    return session


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_session_that_does_not_read_is_told_each_thing_once_and_goes_on_being_told() -> None:
    sessions, slow, quick = LegacySessions(), Connection(), Connection()
    _kept = begun(sessions, slow), begun(sessions, quick)
    slow.reads.clear()
    for _ in range(3):
        sessions.send(Notices(tools={EVERYONE}, resources={EVERYONE}))
        await turns()
    assert sorted(quick.told) == ["resources"] * 3 + ["tools"] * 3
    slow.reads.set()
    await turns()
    # What was on its way when it stopped to read, and each thing once for all that came after.
    assert sorted(slow.told) in (["resources", "tools", "tools"], ["resources", "resources", "tools"])
    sessions.send(Notices(prompts={EVERYONE}))
    await turns()
    assert slow.told[-1] == quick.told[-1] == "prompts"


async def test_any_file_of_a_watched_skill_is_told_when_its_skill_changes_and_of_no_other() -> None:
    sessions, connection = LegacySessions(), Connection()
    session = begun(sessions, connection)
    assert sessions.watch(session, FILE)
    assert sessions.watch(session, PINNED)
    assert sessions.watch(session, "skill://main/other/SKILL.md")
    sessions.send(Notices(updated={uris.watched(FILE): EVERYONE}))
    await turns()
    assert connection.told == [FILE]
    sessions.unwatch(session, FILE)
    connection.told.clear()
    sessions.send(Notices(updated={uris.watched(FILE): EVERYONE}))
    await turns()
    assert connection.told == []


async def test_a_session_watches_so_many_resources_and_no_more() -> None:
    sessions = LegacySessions()
    session = begun(sessions, Connection())
    assert all(sessions.watch(session, f"skill://main/s{number}/SKILL.md") for number in range(WATCHED_MAX))
    assert not sessions.watch(session, FILE)
    assert sessions.watch(session, "skill://main/s0/SKILL.md")


async def test_a_session_that_cannot_be_told_is_forgotten_and_the_others_are_told() -> None:
    sessions, gone, there = LegacySessions(), Gone(), Connection()
    _kept = begun(sessions, gone), begun(sessions, there)
    sessions.send(Notices(tools={EVERYONE}))
    await turns()
    assert there.told == ["tools"]
    assert len(sessions) == 1


async def test_closing_ends_what_waits_for_a_client_that_does_not_read() -> None:
    sessions, slow = LegacySessions(), Connection()
    _kept = begun(sessions, slow)
    slow.reads.clear()
    sessions.send(Notices(tools={EVERYONE}))
    await turns()
    async with asyncio.timeout(5):
        await sessions.close()
    assert slow.told == []
