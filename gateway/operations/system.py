"""The service itself: its log of changes, its cache, its sources, its state."""

from typing import Any

import msgspec
from pydantic import Field

from gateway.envelope import Reply, reply
from gateway.operations.table import PAGE_MAX, SEQ_MAX, Context, NoParams, Operation, Params
from services.clock import monotonic_s


class ListChanges(Params):
    after: int = Field(0, ge=0, le=SEQ_MAX, description="Only changes with a larger seq.")
    limit: int = Field(100, ge=1, le=PAGE_MAX)


async def list_changes(context: Context, params: ListChanges) -> Reply:
    changes = await context.replica.store.tail(params.after, params.limit)
    items = [
        {
            "id": change.id,
            "seq": change.seq,
            "topic": change.topic,
            "kind": change.kind,
            "at": change.at,
            "data": msgspec.Raw(change.data),
        }
        for change in changes
        if context.principal.viewer.sees(change)
    ]
    after = changes[-1].seq if len(changes) == params.limit else None
    return reply({"items": items, "next_after": after, "position": context.replica.feed.position.id})


async def cache_stats(context: Context, _: NoParams) -> Reply:
    return reply(_cache(context))


def _cache(context: Context) -> dict[str, Any]:
    replica = context.replica
    stats, memory, second = replica.cache.stats, replica.memory, replica.second
    reads = stats.l1_hits + stats.l2_hits + stats.loads
    return {
        "l1": {
            "entries": len(memory),
            "entries_max": memory.entries_max,
            "bytes": int(memory.currsize),
            "hits": stats.l1_hits,
            "misses": reads - stats.l1_hits,
            "hit_rate": round(stats.l1_hits / reads, 4) if reads else None,
        },
        "l2": {
            "state": second.state,
            "detail": next((notice for notice in replica.notices if notice.startswith("L2")), ""),
            "hits": stats.l2_hits,
            "misses": second.misses,
            "errors": second.errors,
        },
        "loads": stats.loads,
        "refused": stats.refused,
    }


async def get_stats(context: Context, _: NoParams) -> Reply:
    replica = context.replica
    body = {
        "version": replica.version,
        "replica": replica.id,
        "started_at": replica.started_at,
        "uptime_s": round(monotonic_s() - replica.started_s, 1),
        "position": replica.feed.position.id,
        "skills": len(replica.view),
        "subscribers": {"websocket": 0, "sse": 0, **replica.notifier.presence},
        "notices": replica.notices,
        "workers": [
            {"pid": worker.pid, "key": worker.key.script, "calls": worker.calls, "rss_bytes": worker.rss_bytes}
            for worker in replica.pool.stats()
        ],
        "search": replica.search.statistics(),
        "cache": _cache(context),
    }
    return reply(body)


async def list_sources(context: Context, _: NoParams) -> Reply:
    """Every path of the watched folder: what it serves, or why it does not."""
    replica = context.replica
    if replica.watcher is None:
        return reply({"items": []})
    entries = await replica.store.ledger(replica.watcher.source)
    items = []
    for path in sorted(entries):
        entry = entries[path]
        skill = replica.view.find(entry.skill_id) if entry.skill_id else None
        served = skill is not None and skill.active is not None
        items.append({**msgspec.structs.asdict(entry), "served": served})
    return reply({"items": items})


OPERATIONS = (
    Operation("list_changes", "The change log.", "read", ("GET", "/changes"), ListChanges, list_changes),
    Operation(
        "cache_stats", "Counters of the cache since start.", "read", ("GET", "/cache/stats"), NoParams, cache_stats
    ),
    Operation("get_stats", "The state of this replica.", "read", ("GET", "/status"), NoParams, get_stats),
    Operation(
        "list_sources",
        "What the watched folder gave, path by path.",
        "read",
        ("GET", "/sources"),
        NoParams,
        list_sources,
    ),
)
