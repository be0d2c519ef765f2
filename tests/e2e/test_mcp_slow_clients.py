"""Clients that are away for a while over real pipes and sockets: what they missed is told, and all that comes later."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.shared.subscriptions import ResourceUpdated

from tests.support.listeners import WAIT_S
from tests.support.service import Service, environment, write_skill

pytestmark = pytest.mark.anyio
# Of 10 KB each: more than the pipe and both sides' buffers hold.
UNREAD = 60
AWAY_S = 1.5
CHANGED = "notifications/resources/list_changed"


class Pipe:
    """A client of 2025-11-25 by hand, which reads when it is told to."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._writer, self._reader = process.stdin, process.stdout
        self.told = False

    def send(self, method: str, **rest: Any) -> None:
        self._writer.write(json.dumps({"jsonrpc": "2.0", "method": method, **rest}).encode() + b"\n")

    async def answer(self, id_: int) -> dict[str, Any]:
        """Reads until it has come; `told` says whether a changed list was told before it."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message: dict[str, Any] = json.loads(await self._reader.readline())
                self.told |= message.get("method") == CHANGED
                if message.get("id") == id_:
                    return message

    async def told_of(self, skill: str) -> None:
        """Reads until a change was told and the skill can be found."""
        async with asyncio.timeout(WAIT_S):
            while True:
                while not self.told:
                    self.told = json.loads(await self._reader.readline()).get("method") == CHANGED
                self.told = False
                self.send("resources/list", id=2, params={})
                if f"/{skill}/" in json.dumps(await self.answer(2)):
                    return


@asynccontextmanager
async def legacy_over_stdio(skills: Path, data: Path) -> AsyncIterator[Pipe]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "stdio", "--skills", str(skills), "--data", str(data)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(log_level="error"),
        limit=64 * 1024,
    )
    pipe = Pipe(process)
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tests", "version": "0"}}
    try:
        pipe.send("initialize", id=1, params=client)
        async with asyncio.timeout(30):
            await pipe.answer(1)
        pipe.send("notifications/initialized")
        yield pipe
    finally:
        process.kill()
        await process.wait()


async def test_a_session_that_is_away_for_a_while_is_told_what_it_missed_and_what_comes_later(tmp_path: Path) -> None:
    skills = tmp_path / "skills"
    write_skill(skills, "one")
    async with legacy_over_stdio(skills, tmp_path / "data") as pipe:
        write_skill(skills, "two")
        await pipe.told_of("two")
        for number in range(UNREAD):
            pipe.send("tools/list", id=10 + number, params={})
        write_skill(skills, "three")
        await asyncio.sleep(AWAY_S)  # what is tested: nothing is read meanwhile
        await pipe.answer(10 + UNREAD - 1)
        await pipe.told_of("three")
        for later in ("four", "five"):
            write_skill(skills, later)
            await pipe.told_of(later)


async def test_any_file_of_a_skill_can_be_watched(service: Service, skills: Path) -> None:
    folder = write_skill(skills, "watched-file")
    (folder / "references").mkdir()
    note = folder / "references" / "note.md"
    note.write_text("One.\n")
    uri = "skill://main/watched-file/references/note.md"
    async with (
        Client(f"{service.url}/mcp", mode="auto") as client,
        client.listen(resource_subscriptions=[uri]) as events,
        asyncio.timeout(WAIT_S),
    ):
        note.write_text("Two.\n")
        async for event in events:
            assert event == ResourceUpdated(uri)
            break
