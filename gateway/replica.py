"""A running replica: every part of it, opened, in one typed place."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.envelope import Source
from notifier.notifier import UnifiedNotifier
from services.cache.memory import MemoryTier
from services.cache.redis import NoSecondTier, RedisTier
from services.cache.tiered import TieredCache
from services.caller import Sees
from services.changes.levels import BOUNDED, LINEARIZABLE, Level
from services.changes.log import ChangeFeed
from services.errors.firewall import ErrorFirewall
from services.execution.calls import ToolCalls
from services.execution.pool import WorkerPool
from services.execution.sandbox import Sandbox
from services.failures import NotFound
from services.models import Skill
from services.ports import AuditStore, MetadataStore
from services.presence import Presence
from services.runs.runs import Runs
from services.search.search import SkillSearch
from services.settings import Settings
from services.skills.catalog import Catalog
from services.skills.compiled import CompiledLists
from services.skills.ranking import ToolRanking
from services.skills.tools import ToolView
from services.skills.uploads import Uploads
from services.skills.view import CatalogView
from services.skills.watcher import FolderWatcher
from services.storage.invocations import InvocationLog
from services.storage.pulse import BlobPulse

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Made and closed by `gateway.wiring.open_replica` alone.

    `watcher` is None when no folder is watched. `notices` are sentences for the operator that
    the log said once and the dashboard goes on saying.
    """

    id: str
    version: str
    started_at: str
    started_s: float
    settings: Settings
    store: MetadataStore
    audit: AuditStore
    feed: ChangeFeed
    view: CatalogView
    tools: ToolView
    tool_lists: CompiledLists
    ranking: ToolRanking
    catalog: Catalog
    blob_pulse: BlobPulse
    uploads: Uploads
    cache: TieredCache
    memory: MemoryTier
    second: RedisTier | NoSecondTier
    search: SkillSearch
    sandbox: Sandbox
    pool: WorkerPool
    calls: ToolCalls
    invocations: InvocationLog
    runs: Runs
    presence: Presence
    firewall: ErrorFirewall
    notifier: UnifiedNotifier
    watcher: FolderWatcher | None
    notices: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """What a replica does once it can answer: gives vectors to what is known, and looks at its folder."""
        self.search.start()
        if self.watcher is not None:
            self.watcher.start()

    async def current(self, level: Level = BOUNDED) -> Source:
        """For answers made from the views: makes them as fresh as `level` asks. Raises `Unavailable`,
        and `Conflict` for a session of another history."""
        return Source("view", await self.feed.bound(level))

    async def seek(self, level: Level, look: Callable[[], Awaitable[T]]) -> T:
        """What `look` finds in state as fresh as `level` asks. `NotFound` is raised only after a tail
        that was sent after the request came: it may have been published just now, on any replica."""
        if level is not BOUNDED or not self.feed.is_fresh:
            await self.feed.bound(level)
        try:
            return await look()
        except NotFound:
            await self.feed.bound(LINEARIZABLE)
            return await look()

    async def skill(self, skill_id: str, sees: Sees, level: Level) -> Skill:
        """A skill that this caller may see. Raises `NotFound` as `seek` does."""

        async def look() -> Skill:
            return self.view.get(skill_id, sees)

        return await self.seek(level, look)

    def tag(self, *parts: object) -> str:
        """An entity tag: `parts` name a state within one history of the log."""
        return "-".join([self.feed.position.epoch, *map(str, parts)])
