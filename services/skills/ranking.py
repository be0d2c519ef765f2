"""Which tools are listed natively when there are more than a context window should hold.

The most used of the newest calls that any replica logged. Every tool stays callable, by its name
or through `call_tool`, and `search_skills` leads to the rest. One replica counts, at most every
hour; what comes of it is a row of the log, so that all replicas list the same, and whatever was
made of the old list is refused as after any other change.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

import msgspec
import structlog

from services import metrics
from services.changes.log import ChangeFeed
from services.models import Change
from services.ports import CatalogSnapshot, InvocationQuery, MetadataStore
from services.skills.tools import CallableTool

EVERY_S = 3600.0
CALLS_MAX = 5000
# Names kept: for who sees few of the most used, those that follow.
RANKED_MAX = 256
KIND = "tools.ranked"
_LEASE = "tool ranking"
_PAGE = 500

log = structlog.get_logger(__name__)


class ToolRanking:
    """A `ChangeSink`; `load` before it is asked. `is_tool` tells tools of skills from whatever else is logged as called:
    counted, those would take places among the listed, and a tool that comes to be listed would be no change."""

    def __init__(
        self,
        store: MetadataStore,
        feed: ChangeFeed,
        *,
        replica: str,
        limit: int,
        is_tool: Callable[[str], bool],
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._feed = feed
        self._replica = replica
        self._limit = limit
        self._is_tool = is_tool
        self._every_s = every_s
        self._ranks: dict[str, int] = {}
        self._is_stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Raises `Unavailable`."""
        self._take(await self._store.tool_ranking())

    def start(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="tool-ranking")
        return self

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def listed(self, tools: Sequence[CallableTool]) -> list[CallableTool]:
        """At most the limit, in the order given; of two that are used as often the first stays."""
        if len(tools) <= self._limit:
            return list(tools)
        last = len(self._ranks)
        most = sorted(tools, key=lambda tool: self._ranks.get(tool.name, last))[: self._limit]
        kept = {tool.name for tool in most}
        return [tool for tool in tools if tool.name in kept]

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind == KIND:
                self._take(msgspec.json.decode(change.data)["tools"])

    def restart(self, snapshot: CatalogSnapshot) -> None:  # noqa: ARG002  # the port's shape
        self._is_stale.set()

    async def refresh(self) -> None:
        """Counts anew, unless any replica has within the last hour. Raises `Unavailable`."""
        if not await self._store.acquire_lease(_LEASE, self._replica, self._every_s):
            return
        names = await self._counted()
        # In another order the same tools are listed, and nobody need list them again for that.
        if set(names[: self._limit]) != {name for name, rank in self._ranks.items() if rank < self._limit}:
            self._feed.committed(await self._store.rank_tools(names))

    async def _counted(self) -> list[str]:
        calls: Counter[str] = Counter()
        before: str | None = None
        for _ in range(CALLS_MAX // _PAGE):
            page = await self._store.invocations(InvocationQuery(_PAGE, before=before))
            calls.update(call.target for call in page if self._is_tool(call.target))
            if len(page) < _PAGE:
                break
            before = page[-1].id
        return sorted(calls, key=lambda name: (-calls[name], name))[:RANKED_MAX]

    def _take(self, names: Sequence[str]) -> None:
        self._ranks = {name: rank for rank, name in enumerate(names)}

    async def _run(self) -> None:
        while True:
            try:
                if self._is_stale.is_set():
                    self._is_stale.clear()  # tried once: the next row, or the next hour, puts it right
                    await self.load()
                await self.refresh()
            except Exception:
                metrics.tool_ranking_failures.inc()
                log.exception("tools are listed by the counts of before")
            try:
                async with asyncio.timeout(self._every_s):
                    await self._is_stale.wait()
            except TimeoutError:
                continue
