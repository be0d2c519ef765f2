"""What a replica says of itself: to the status operations, to the probes, and live to the dashboard."""

from typing import Any, NamedTuple

from gateway.replica import Replica
from services.caller import Sees
from services.clock import monotonic_s
from services.failures import Unavailable
from services.skills.compiled import TTL_S

# Of all skills in memory; the count beside the list is whole.
CACHED_SHOWN_MAX = 500


class Check(NamedTuple):
    """`ok`, `degraded` (answers are still right, but slower or fewer), `down`, or `off` (not configured)."""

    status: str
    detail: str = ""


def status(replica: Replica) -> dict[str, Any]:
    """Sizes and counters of this replica since its start; `audiences` are streams that are up to date, by topic,
    and `fleet` the other replicas whose states arrive here."""
    return {
        "version": replica.version,
        "replica": replica.id,
        "started_at": replica.started_at,
        "uptime_s": round(monotonic_s() - replica.started_s, 1),
        "position": replica.feed.position.id,
        "skills": len(replica.view),
        "subscribers": {"websocket": 0, "sse": 0, **replica.notifier.presence},
        "audiences": dict(replica.notifier.audiences),
        "fleet": {"coverage": replica.notifier.fleet.coverage, "replicas": replica.notifier.fleet.replicas},
        "notices": replica.notices,
        "workers": [
            {
                "pid": worker.pid,
                "key": worker.key.script,
                "calls": worker.calls,
                "age_s": round(worker.age_s, 1),
                "idle": worker.is_idle,
                "rss_bytes": worker.rss_bytes,
            }
            for worker in replica.pool.stats()
        ],
        "search": replica.search.statistics(),
    }


def cache(replica: Replica) -> dict[str, Any]:
    """Counters of the cache since start; `hit_rate` is None before the first read."""
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


def skill_cache(replica: Replica, sees: Sees) -> dict[str, Any]:
    """The skills whose details are in memory, newest first, and the compiled list of tools."""
    stats, now_s = replica.cache.stats, replica.memory.clock()
    hits = stats.l1_hits + stats.l2_hits
    held: list[dict[str, Any]] = []
    for key, cell in sorted(replica.memory.cells(), key=lambda each: -each[1].loaded_s):
        skill = replica.view.find(key.removeprefix("detail:")) if key.startswith("detail:") else None
        # A record from before the skill's last change would be refused: it is not cached any more.
        if skill is None or skill.seq > cell.record.asof or now_s >= cell.until_s or not sees(skill):
            continue
        held.append({
            "skill_id": skill.id,
            "version": skill.active.version if skill.active else None,
            "age_seconds": round(now_s - cell.loaded_s, 1),
            "ttl_remaining": round(cell.until_s - now_s, 1),
            "bytes": len(cell.record.value),
        })  # fmt: skip
    lists = replica.tool_lists
    return {
        "skill_cache": {
            **_rates(hits, stats.loads),
            "cached_count": len(held),
            "cached_skills": held[:CACHED_SHOWN_MAX],
        },
        "tool_list_cache": {**_rates(lists.hits, lists.misses), "current_cache": _tool_list(replica)},
        "ttl_seconds": int(TTL_S),
    }


def _rates(hits: int, misses: int) -> dict[str, Any]:
    total = hits + misses
    percent = round(100 * hits / total, 2) if total else 0.0
    return {"hits": hits, "misses": misses, "total_requests": total, "hit_rate_percent": percent}


def _tool_list(replica: Replica) -> dict[str, Any] | None:
    newest = replica.tool_lists.newest
    if newest is None:
        return None
    age_s = replica.tool_lists.age_s(newest)
    return {
        "tool_count": len(newest.tools),
        "skill_count": sum(1 for _ in replica.view.served(lambda _: True)),
        "age_seconds": round(age_s, 1),
        "ttl_remaining": round(TTL_S - age_s, 1),
    }


async def health(replica: Replica) -> dict[str, Any]:
    """`{status, checks, notices}`; down only when the database is, because then nothing new can be known."""
    checks = {
        "database": await database(replica),
        "blobs": await _blobs(replica),
        "redis": _redis(replica),
        "search": _search(replica),
        "sandbox": _sandbox(replica),
        "watcher": _watcher(replica),
    }
    worst = "ok"
    if checks["database"].status == "down":
        worst = "down"
    elif any(check.status in ("degraded", "down") for check in checks.values()):
        worst = "degraded"
    return {
        "status": worst,
        "checks": {name: check._asdict() for name, check in checks.items()},
        "notices": replica.notices,
    }


async def database(replica: Replica) -> Check:
    """Asks the database when it has not been heard of for a moment."""
    try:
        bound = await replica.feed.bound()
    except Unavailable as error:
        return Check("down", error.message)
    return Check("degraded", f"no answer; serving state of seq {bound.asof}") if bound.stale else Check("ok")


async def _blobs(replica: Replica) -> Check:
    """Never `down`: whatever is in memory or in the database is served without them."""
    trouble = await replica.blob_pulse.trouble()
    return Check("degraded", f"files can be neither read nor published: {trouble}") if trouble else Check("ok")


def _redis(replica: Replica) -> Check:
    state = replica.second.state
    if state == "on":
        return Check("ok")
    return Check("off") if state == "off" else Check("degraded", "not answering; served from memory and the database")


def _search(replica: Replica) -> Check:
    statistics = replica.search.statistics()
    detail = f"{statistics['vectors']} of {statistics['documents']} skills have vectors"
    return Check("ok" if statistics["mode"] == "hybrid" else "degraded", detail)


def _sandbox(replica: Replica) -> Check:
    sandbox = replica.sandbox
    if sandbox.available:
        return Check("ok", f"{sandbox.name} {sandbox.version}")
    return Check("degraded", f"tools cannot be called: {sandbox.reason}")


def _watcher(replica: Replica) -> Check:
    watcher = replica.watcher
    if watcher is None:
        return Check("off")
    if watcher.state == "failing" or watcher.held:
        return Check("degraded", watcher.held or f"{watcher.root} cannot be watched")
    if watcher.no_events:
        return Check("degraded", f"{watcher.root} is polled: {watcher.no_events}")
    return Check("ok", watcher.state)
