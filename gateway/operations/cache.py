"""The cache by hand: what it holds, forgetting it, and looking at the watched folder now."""

from collections.abc import Iterable

from pydantic import Field

from gateway import state
from gateway.envelope import Reply, reply
from gateway.operations.table import Context, NoParams, Operation, Params
from services.models import SKILL_ID_PATTERN
from services.ports import ReloadKind


class ForSkill(Params):
    skill_id: str | None = Field(
        None, max_length=160, pattern=SKILL_ID_PATTERN, description="`owner/name`; all skills when absent."
    )


async def cache_stats(context: Context, _: NoParams) -> Reply:
    sees = context.principal.viewer.sees
    return reply({**state.cache(context.replica), **state.skill_cache(context.replica, sees)})


async def invalidate(context: Context, params: ForSkill) -> Reply:
    invalidated = await _forget(context, params.skill_id)
    seq = await _note(context, "cache.invalidated", params.skill_id, {"invalidated": invalidated})
    return reply({"skill_id": params.skill_id, "invalidated": invalidated}, seq=seq)


async def reload(context: Context, params: ForSkill) -> Reply:
    """Reads the skill's packages (or all) from the watched folder again, past every cache. A skill that
    came from elsewhere has no package there: it is only forgotten and loaded anew."""
    invalidated = await _forget(context, params.skill_id)
    return await _rescanned(context, params.skill_id, {"skill_id": params.skill_id}, {"invalidated": invalidated})


async def hot_reload(context: Context, _: NoParams) -> Reply:
    return await _rescanned(context, None, {}, {})


async def _forget(context: Context, skill_id: str | None) -> int:
    """How many records of L1 were dropped. What L2 keeps is checked against the log at every read."""
    cache, memory = context.replica.cache, context.replica.memory
    if skill_id is None:
        held = len(memory)
        cache.clear()
        context.replica.tool_lists.clear()
        return held
    skill = await context.replica.skill(skill_id, context.principal.viewer.sees, context.level)
    held = len(memory)
    for key in _keys_of(skill.id, range(1, skill.last_version + 1)):
        cache.invalidate(key)
    return held - len(memory)


def _keys_of(skill_id: str, versions: Iterable[int]) -> list[str]:
    return [f"detail:{skill_id}", f"versions:{skill_id}", *(f"version:{skill_id}@{number}" for number in versions)]


async def _rescanned(context: Context, skill_id: str | None, told: dict[str, object], counts: dict[str, int]) -> Reply:
    replica = context.replica
    changed = await replica.watcher.rescan(skill_id) if replica.watcher is not None else 0
    kind: ReloadKind = "reload.folder" if skill_id is None else "reload.skill"
    await _note(context, kind, skill_id, {**counts, "changed": changed})
    await replica.feed.tail()
    position = replica.feed.position
    body = {**told, **counts, "is_watching": replica.watcher is not None, "changed": changed, "seq": position.seq}
    return reply(body, seq=position.seq)._replace(position=position.id)


async def _note(context: Context, kind: ReloadKind, skill_id: str | None, counts: dict[str, int]) -> int:
    """Who did it, in the change log and so in the audit log; answers the row's seq."""
    seq = await context.replica.store.note_reload(kind, skill_id, context.principal.id, counts)
    context.replica.feed.committed(seq)
    return seq


OPERATIONS = (
    Operation(
        "cache_stats", "Counters of the cache since start.", "read", ("GET", "/cache/stats"), NoParams, cache_stats
    ),
    Operation("get_skill_cache_stats", "The same under its MCP name.", "read", None, NoParams, cache_stats),
    Operation(
        "invalidate_skill_cache",
        "Forget what is cached of a skill, or everything.",
        "publish",
        ("POST", "/cache/invalidate"),
        ForSkill,
        invalidate,
    ),
    Operation(
        "force_skill_reload",
        "Read a skill, or all, from the watched folder again.",
        "publish",
        ("POST", "/cache/reload"),
        ForSkill,
        reload,
        120.0,
    ),
    Operation(
        "trigger_hot_reload",
        "Look for changes in the watched folder now.",
        "publish",
        ("POST", "/cache/hot-reload"),
        NoParams,
        hot_reload,
        120.0,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
