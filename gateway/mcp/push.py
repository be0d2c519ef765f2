"""Telling MCP clients of changes: listen streams of 2026-07-28 and sessions of before, both from the log."""

import asyncio
from collections.abc import Sequence

import structlog
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated, ToolsListChanged

from gateway.mcp import uris
from gateway.mcp.legacy import LegacySessions
from services import metrics
from services.models import Change
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
        self._tools = False
        self._resources = False
        self._updated: set[str] = set()
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
        for change in changes:
            if change.topic == "tools":
                self._tools = True
            elif change.topic == "skills" and change.skill is not None:
                self._resources = True
                self._updated.add(uris.alias(change.skill))
        self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._tools = self._resources = True
        self._updated.update(uris.alias(skill) for skill in snapshot.skills)
        self._news.set()

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
        tools, resources, updated = self._tools, self._resources, self._updated
        self._tools, self._resources, self._updated = False, False, set()
        if tools:
            await self._bus.publish(ToolsListChanged())
        if resources:
            await self._bus.publish(ResourcesListChanged())
        for uri in updated:
            await self._bus.publish(ResourceUpdated(uri))
        if tools or resources:
            await self.legacy.send(tools=tools, resources=resources)
