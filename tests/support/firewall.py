"""An error firewall over a real store, and calls that fail in it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from services.caller import Sees
from services.errors.firewall import ErrorFirewall
from services.errors.nouns import Incident, KnownSolution, Solution
from services.errors.similar import SimilarPatterns
from services.failures import ServiceError, ToolFailed, Unavailable
from services.models import Skill, Visibility
from services.ports import Embedder, IncidentStore
from services.search.hash_embed import HashEmbedder
from services.skills.tools import CallableTool, callable_name
from services.storage.incidents import SqlIncidents
from services.storage.sql import SqlStore
from tests.support.drafts import tool as tool_spec
from tests.support.search_parts import everyone, skill


def tool(name: str = "alpha", *, owner: str = "main", visibility: Visibility = "public") -> CallableTool:
    of = skill(name, name, owner=owner, visibility=visibility, tools=[tool_spec("run")])
    assert of.active is not None
    return CallableTool(callable_name(of, of.active.tools[0]), of, of.active, of.active.tools[0])


class Running(NamedTuple):
    firewall: ErrorFirewall
    announced: list[Incident]


@asynccontextmanager
async def running(
    store: SqlStore,
    *tools: CallableTool,
    incidents: IncidentStore | None = None,
    embedder: Embedder | None = None,
) -> AsyncIterator[Running]:
    skills: dict[str, Skill] = {each.skill.id: each.skill for each in tools}
    announced: list[Incident] = []
    firewall = ErrorFirewall(
        incidents or SqlIncidents(store),
        SimilarPatterns(store, embedder or HashEmbedder()),
        skills.get,
        lambda incident, _: announced.append(incident),
    )
    await firewall.start()
    try:
        yield Running(firewall, announced)
    finally:
        await firewall.close()


class Failed(NamedTuple):
    """How a call ended: its incident (empty when nothing was counted) and what its caller was told."""

    error: ServiceError
    incident: str
    known: list[KnownSolution]


async def fail(
    firewall: ErrorFirewall,
    tool: CallableTool,
    error: str | ServiceError,
    arguments: dict[str, Any] | None = None,
    sees: Sees = everyone,
) -> Failed:
    raised = ToolFailed(error) if isinstance(error, str) else error
    try:
        async with firewall.guarding(tool, arguments or {}, sees):
            raise raised
    except ServiceError as failure:
        return Failed(failure, failure.facts.get("incident", ""), failure.facts.get("known_solutions", []))


class TroubledIncidents(SqlIncidents):
    """Fails the next `failures` writes of occurrences, holds them while `gate` is clear; looking for
    solutions raises `trouble`, or waits for ever while `hangs`."""

    failures = 0
    trouble: Exception | None = None
    hangs = False

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()

    async def record(self, incidents: Sequence[Incident]) -> list[Incident]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database is away")
        self.writing.set()
        await self.gate.wait()
        return await super().record(incidents)

    async def solutions(self, incident_ids: Sequence[str]) -> list[Solution]:
        if self.trouble is not None:
            raise self.trouble
        if self.hangs:
            await asyncio.Event().wait()
        return await super().solutions(incident_ids)
