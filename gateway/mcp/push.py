"""Telling MCP clients of changes: listen streams of 2026-07-28 and sessions of before, both from the log."""

import asyncio
from collections.abc import Sequence

import structlog
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged

from gateway.mcp import uris
from gateway.mcp.legacy import LegacySessions, Notices
from services import metrics
from services.models import Change, Skill
from services.ports import CatalogSnapshot

# At most one notice of a kind in this time; the first of a burst goes out at once.
QUIET_S = 0.1
_LISTENERS_MAX = 10_000

log = structlog.get_logger(__name__)


class McpPush:
    """A `ChangeSink`: rows become notices, sent by one owned task."""

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self._news = asyncio.Event()
        self._due = Notices()
        self._prompts_of: dict[str, object] = {}
        self._task: asyncio.Task[None] | None = None
        self.listen = ListenHandler(self._bus, max_subscriptions=_LISTENERS_MAX)
        self.legacy = LegacySessions()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="mcp-push")

    async def close(self) -> None:
        """Ends listen streams with their final frame."""
        self.listen.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def apply(self, changes: Sequence[Change]) -> None:
        due = self._due
        for change in changes:
            if change.topic == "tools":
                due.tools = True
            elif change.topic == "skills" and change.skill is not None:
                due.resources = True
                due.updated.update(_uris_of(change.skill))
                due.prompts |= self._prompts_changed(change.skill)
        self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._due = Notices(tools=True, prompts=True, resources=True)
        for skill in snapshot.skills:
            self._due.updated.update(_uris_of(skill))
            self._prompts_changed(skill)
        self._news.set()

    def _prompts_changed(self, skill: Skill) -> bool:
        """True unless the skill serves the prompts it was last seen with, or has never had any."""
        now = _prompts_of(skill)
        before = self._prompts_of.pop(skill.id, None)
        if now is not None:
            self._prompts_of[skill.id] = now
        return now != before

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._send()
            except Exception:
                metrics.notice_failures.labels("mcp").inc()
                log.exception("a notice could not be sent to MCP clients")
            await asyncio.sleep(QUIET_S)

    async def _send(self) -> None:
        due, self._due = self._due, Notices()
        if due.tools:
            await self._bus.publish(ToolsListChanged())
        if due.prompts:
            await self._bus.publish(PromptsListChanged())
        if due.resources:
            await self._bus.publish(ResourcesListChanged())
        for uri in due.updated:
            await self._bus.publish(ResourceUpdated(uri))
        if due:
            await self.legacy.send(due)


def _uris_of(skill: Skill) -> list[str]:
    """Every name under which a client may watch a resource of this skill."""
    declared = skill.active.tools if skill.active else ()
    return [
        uris.alias(skill),
        *(f"{skill.owner}://{spec.uri}" for spec in declared if spec.kind == "resource"),
    ]


def _prompts_of(skill: Skill) -> object:
    """What a list of prompts shows of this skill; None for nothing."""
    if skill.active is None or skill.status != "active":
        return None
    fields = skill.active.frontmatter
    own = [spec for spec in skill.active.tools if spec.kind == "prompt"]
    invocable = fields.get("user-invocable") is True
    shown = [skill.active.description, fields.get("arguments"), fields.get("argument-hint")] if invocable else []
    return (own, shown) if own or shown else None
