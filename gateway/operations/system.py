"""The service itself: its log of changes, its sources, its state."""

import msgspec
from pydantic import Field

from gateway import state
from gateway.envelope import Reply, reply
from gateway.operations.table import PAGE_MAX, SEQ_MAX, Context, NoParams, Operation, Params


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


async def get_stats(context: Context, _: NoParams) -> Reply:
    return reply(state.status(context.replica))


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
