"""Which tools are listed natively when there are more than a context window should hold.

The most used of the newest calls that any replica logged. Every tool stays callable, by its name
or through `call_tool`, and `search_skills` leads to the rest.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from services import metrics
from services.ports import InvocationQuery, MetadataStore
from services.skills.tools import CallableTool

EVERY_S = 3600.0
CALLS_MAX = 5000
_PAGE = 500

log = structlog.get_logger(__name__)


class ToolRanking:
    """Counts the newest `CALLS_MAX` calls at the start and every hour; `changed` is called when the
    counts differ, since other tools may be listed then."""

    def __init__(
        self, store: MetadataStore, *, limit: int, changed: Callable[[], None], every_s: float = EVERY_S
    ) -> None:
        self._store = store
        self._limit = limit
        self._changed = changed
        self._every_s = every_s
        self._calls: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tool-ranking")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def listed(self, tools: Sequence[CallableTool]) -> list[CallableTool]:
        """At most the limit, in the order given; of two that are used as often the first stays."""
        if len(tools) <= self._limit:
            return list(tools)
        most = sorted(tools, key=lambda tool: -self._calls[tool.name])[: self._limit]
        kept = {tool.name for tool in most}
        return [tool for tool in tools if tool.name in kept]

    async def refresh(self) -> None:
        """Raises `Unavailable`."""
        calls: Counter[str] = Counter()
        before: str | None = None
        for _ in range(CALLS_MAX // _PAGE):
            page = await self._store.invocations(InvocationQuery(_PAGE, before=before))
            calls.update(call.target for call in page)
            if len(page) < _PAGE:
                break
            before = page[-1].id
        if calls != self._calls:
            self._calls = calls
            self._changed()

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:
                metrics.tool_ranking_failures.inc()
                log.exception("tools are listed by the counts of before")
            await asyncio.sleep(self._every_s)
