"""A running replica: every part of it, opened, in one typed place."""

from dataclasses import dataclass, field

from gateway.envelope import Source
from notifier.notifier import UnifiedNotifier
from services.cache.memory import MemoryTier
from services.cache.redis import NoSecondTier, RedisTier
from services.cache.tiered import TieredCache
from services.changes.log import ChangeFeed
from services.errors.firewall import ErrorFirewall
from services.execution.calls import ToolCalls
from services.execution.pool import WorkerPool
from services.execution.sandbox import Sandbox
from services.ports import MetadataStore
from services.search.search import SkillSearch
from services.settings import Settings
from services.skills.catalog import Catalog
from services.skills.tools import ToolView
from services.skills.view import CatalogView
from services.skills.watcher import FolderWatcher
from services.storage.invocations import InvocationLog


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
    feed: ChangeFeed
    view: CatalogView
    tools: ToolView
    catalog: Catalog
    cache: TieredCache
    memory: MemoryTier
    second: RedisTier | NoSecondTier
    search: SkillSearch
    sandbox: Sandbox
    pool: WorkerPool
    calls: ToolCalls
    invocations: InvocationLog
    firewall: ErrorFirewall
    notifier: UnifiedNotifier
    watcher: FolderWatcher | None
    notices: list[str] = field(default_factory=list)

    async def current(self) -> Source:
        """For answers made from the views: they are at most the bound behind. Raises `Unavailable`."""
        return Source("view", await self.feed.bound())
