"""A skill's versions: activating, pinning, restoring, comparing, and how much they are used."""

import asyncio
from typing import Any

import msgspec
from pydantic import ConfigDict, Field

from gateway.envelope import Reply, cached, reply
from gateway.operations.skills import written
from gateway.operations.table import SEQ_MAX, Context, Operation, SkillParams, VersionParams
from services.cache.deps import depends_on
from services.cache.space import Space
from services.models import Usage, Version
from services.skills.catalog import may_be_given_out
from services.skills.compare import compare
from services.skills.export import write_zip

_DIFFS = Space("diff")


class Pin(VersionParams):
    pinned: bool = Field(True, description="False lets retention remove it again.")


class Diff(SkillParams):
    model_config = ConfigDict(populate_by_name=True)

    from_: int = Field(alias="from", ge=1, le=SEQ_MAX, description="The number of one version.")
    to: int = Field(ge=1, le=SEQ_MAX, description="The number of the other.")


class Export(SkillParams):
    version: int | None = Field(None, ge=1, le=SEQ_MAX, description="The active version when absent.")


async def pin(context: Context, params: Pin) -> Reply:
    principal, replica = context.principal, context.replica
    await replica.skill(params.skill_id, principal.viewer.sees, context.level)
    return await written(
        context, await replica.catalog.pin(params.skill_id, params.version, params.pinned, principal.id)
    )


async def delete_version(context: Context, params: VersionParams) -> Reply:
    principal, replica = context.principal, context.replica
    await replica.skill(params.skill_id, principal.viewer.sees, context.level)
    return await written(context, await replica.catalog.remove_version(params.skill_id, params.version, principal.id))


async def restore(context: Context, params: SkillParams) -> Reply:
    principal, replica = context.principal, context.replica
    await replica.skill(params.skill_id, principal.viewer.sees, context.level)
    return await written(context, await replica.catalog.restore(params.skill_id, principal.id))


async def diff_versions(context: Context, params: Diff) -> Reply:
    replica = context.replica
    skill = await replica.skill(params.skill_id, context.principal.viewer.sees, context.level)
    dep = f"skill:{skill.id}"

    async def load() -> bytes:
        depends_on(dep)
        old, new = [
            (await replica.catalog.version(skill.id, number, lambda _: True))[1] for number in (params.from_, params.to)
        ]
        for version in (old, new):
            may_be_given_out(version)
        return msgspec.json.encode(await compare(old, new, replica.catalog.blob))

    key = f"diff:{skill.id}@{params.from_}..{params.to}"
    return cached(await replica.cache.get(_DIFFS, key, load, level=context.level, deps=(dep,)))


async def usage(context: Context, params: SkillParams) -> Reply:
    """Counters move with every call and are read from the database each time."""
    replica = context.replica
    skill = await replica.skill(params.skill_id, context.principal.viewer.sees, context.level)
    items = await replica.store.usage(skill.id)
    return reply(
        {
            "id": skill.id,
            "calls": sum(item.calls for item in items),
            "failures": sum(item.failures for item in items),
            "last_at": max((item.last_at for item in items), default=None),
            "versions": [_counts(item) for item in items],
        }
    )


def _counts(item: Usage) -> dict[str, Any]:
    counts = msgspec.structs.asdict(item)
    del counts["skill_id"]
    return counts


async def export_zip(context: Context, params: Export) -> tuple[Version, bytes]:
    """The zip of a version. Raises `NotFound`, and `Forbidden` for a quarantined one."""
    replica, sees = context.replica, context.principal.viewer.sees

    async def look() -> Version:
        return (await replica.catalog.version(params.skill_id, params.version, sees))[1]

    version = await replica.seek(context.level, look)
    may_be_given_out(version)
    files = [(entry.path, await replica.catalog.blob(entry)) for entry in version.manifest]
    return version, await asyncio.to_thread(write_zip, params.name, files)


OPERATIONS = (
    Operation(
        "pin_version",
        "Keep a version from retention, or no longer.",
        "publish",
        ("POST", "/skills/{owner}/{name}/pin"),
        Pin,
        pin,
    ),
    Operation(
        "delete_version",
        "Remove one version for good, unless it is active or pinned.",
        "admin",
        ("DELETE", "/skills/{owner}/{name}/versions/{version}"),
        VersionParams,
        delete_version,
    ),
    Operation(
        "restore_skill",
        "Put a deleted skill back in service.",
        "publish",
        ("POST", "/skills/{owner}/{name}/restore"),
        SkillParams,
        restore,
    ),
    Operation(
        "diff_versions",
        "What differs between two versions.",
        "read",
        ("GET", "/skills/{owner}/{name}/diff"),
        Diff,
        diff_versions,
    ),
    Operation(
        "get_usage",
        "How often a skill's versions were called.",
        "read",
        ("GET", "/skills/{owner}/{name}/usage"),
        SkillParams,
        usage,
    ),
)
