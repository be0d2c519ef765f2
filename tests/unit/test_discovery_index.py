"""The first index after a start reads every package: once for all who ask, and for each viewer what it sees."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from gateway.operations.table import Context
from gateway.principal import LOCAL, Principal
from gateway.replica import Replica
from gateway.routes.discovery import Discovery
from notifier.events import Viewer
from services.caller import Sees
from services.models import FileEntry, Skill, Version
from tests.support.drafts import sha256
from tests.support.search_parts import skill

pytestmark = pytest.mark.anyio
FILES = {"SKILL.md": b"one", "references/more.md": b"two"}
CLIENTS = 8


def packaged(name: str, **more: Any) -> Skill:
    manifest = tuple(FileEntry(path, sha256(data.decode()), len(data)) for path, data in FILES.items())
    made = skill(name, "Does it.", **more)
    assert made.active is not None
    version = msgspec.structs.replace(made.active, manifest=manifest, digest=f"sha256:{sha256(name)}")
    return msgspec.structs.replace(made, active=version)


class Parts:
    """What an index is made of. Whoever looks for a version waits for `gate`; `all_asked` is set once `CLIENTS` ask."""

    revision = 1

    def __init__(self, *skills: Skill) -> None:
        self.skills = {each.id: each for each in skills}
        self.asked = 0
        self.looked = 0
        self.all_asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.view = self.catalog = self.cache = self

    async def current(self, _level: object) -> None:
        self.asked += 1
        if self.asked == CLIENTS:
            self.all_asked.set()

    def tag(self, *parts: object) -> str:
        return "-".join(map(str, parts))

    def served(self, sees: Sees) -> Iterator[Skill]:
        return (each for each in self.skills.values() if sees(each))

    async def seek(self, _level: object, look: Callable[[], Awaitable[Any]]) -> Any:
        self.looked += 1
        await self.gate.wait()
        return await look()

    async def version(self, skill_id: str, _number: int, _sees: Sees) -> tuple[Skill, Version]:
        found = self.skills[skill_id]
        return found, cast(Version, found.active)

    async def get(self, _space: object, key: str, _load: object) -> Any:
        [found] = [data for data in FILES.values() if key == f"blob:{sha256(data.decode())}"]
        return SimpleNamespace(value=found, tier="l1")


def context(parts: Parts, principal: Principal = LOCAL) -> Context:
    return Context(cast(Replica, parts), principal, principal.caller("rest"))


@pytest.fixture
async def parts() -> Parts:
    return Parts(packaged("open"), packaged("hidden", owner="them", visibility="private"))


@pytest.fixture
async def discovery(parts: Parts) -> AsyncIterator[Discovery]:
    made = Discovery(cast(Replica, parts))
    yield made
    await made.close()


async def test_however_many_ask_at_once_the_packages_are_read_once(parts: Parts, discovery: Discovery) -> None:
    asking = [asyncio.create_task(discovery.index(context(parts), "", "")) for _ in range(CLIENTS)]
    async with asyncio.timeout(5):
        await parts.all_asked.wait()
        parts.gate.set()
        answers = await asyncio.gather(*asking)
    assert len({*answers}) == 1
    assert parts.looked == 2 * (1 + len(FILES)), "for each of two packages its version, and each of its files"


async def test_who_asks_at_once_is_told_of_what_it_sees(parts: Parts, discovery: Discovery) -> None:
    stranger = Principal("stranger", LOCAL.scopes, Viewer(owners=frozenset(("other",))))
    callers = [LOCAL, stranger] * (CLIENTS // 2)
    asking = [asyncio.create_task(discovery.index(context(parts, each), "", "")) for each in callers]
    async with asyncio.timeout(5):
        await parts.all_asked.wait()
        parts.gate.set()
        answers = await asyncio.gather(*asking)
    names = [[entry["name"] for entry in msgspec.json.decode(data)["skills"]] for _, data in answers]
    assert names == [["open", "hidden"], ["open"]] * (CLIENTS // 2)


async def test_a_client_that_leaves_takes_nothing_from_the_others(parts: Parts, discovery: Discovery) -> None:
    first, *others = [asyncio.create_task(discovery.index(context(parts), "", "")) for _ in range(CLIENTS)]
    async with asyncio.timeout(5):
        await parts.all_asked.wait()
        first.cancel()
        parts.gate.set()
        answers = await asyncio.gather(*others)
    assert len({*answers}) == 1
    assert first.cancelled()
