"""The rules of the writes that change a skill: from what was read to the rows that will be written.

The writes themselves are pure; `read_for_write` reads what they need, in one snapshot, and an
adapter commits the plan they make.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio.engine import AsyncConnection

from services.clock import utc_now
from services.failures import Conflict, Invalid, NotFound
from services.models import Draft, LedgerEntry, Published, Skill, Status, ToolSpec, Version
from services.storage import schema
from services.storage.database import KEYS_MAX
from services.storage.plan import NAMESPACE, LogEnd, WritePlan

Skills = dict[str, Skill]

_NUMBER_MAX = 2**63 - 1


def publish(plan: WritePlan, skills: Skills, draft: Draft) -> Published:
    """One draft: its version, the active pointer, its ledger entry and its change rows.

    `skills` are those that exist among the ones asked for; the one that is published is put back
    as it will be, for the drafts after it.
    """
    if draft.source_path is not None:
        plan.put_ledger(LedgerEntry(draft.source, draft.source_path, draft.digest, draft.skill_id, draft.diagnostics))
    before = skills.get(draft.skill_id)
    last_version = before.last_version if before else 0
    if before is not None and before.status == "removed":
        before = None  # nothing of it counts but the number
    active = before.active if before else None
    if draft.if_match is not None and (active is None or active.digest != draft.if_match):
        now = f"version {active.version} ({active.digest}) is active" if active else "no version of it is active"
        raise Conflict(
            f"{draft.skill_id} is not at the digest you started from: {now}",
            active_digest=active.digest if active else None,
            active_version=active.version if active else None,
        )
    if before and active and active.digest == draft.digest:
        return Published(before.id, active.version, active.digest, before.seq, changed=False)
    version = Version(
        version=last_version + 1,
        digest=draft.digest,
        grade=draft.grade,
        description=draft.description,
        frontmatter=draft.frontmatter,
        manifest=draft.manifest,
        tools=draft.tools,
        diagnostics=draft.diagnostics,
        created_at=utc_now(),
        created_by=draft.created_by,
        source=draft.source,
    )
    plan.add_version(draft.skill_id, version)
    served = draft.activate and draft.grade != "quarantined"
    now_active = version if served else active
    after = skills[draft.skill_id] = Skill(
        id=draft.skill_id,
        owner=draft.owner,
        name=draft.name,
        # A version that is only kept must neither expose nor hide the one that is served.
        visibility=draft.visibility if served or before is None else before.visibility,
        status="active" if now_active else _status_unserved(before, draft),
        seq=plan.next_seq,
        last_version=version.version,
        active=now_active,
        pinned=before.pinned if before else (),
        deleted_version=before.deleted_version if before and not now_active else None,
    )
    kind = "skill.quarantined" if draft.grade == "quarantined" else "skill.published"
    append(plan, kind, before, after, version, draft.created_by)
    return Published(after.id, version.version, version.digest, after.seq)


def activate(plan: WritePlan, before: Skill, version: Version, by: str) -> Published:
    """Moves the active pointer to a version that exists and can be served."""
    skill_id, number = before.id, version.version
    if version.grade == "quarantined":
        raise Invalid(f"version {number} of {skill_id} is quarantined and cannot be served")
    if before.active and before.active.version == number:
        return Published(skill_id, number, version.digest, before.seq, changed=False)
    return put_in_service(plan, "skill.activated", before, version, by)


def put_in_service(plan: WritePlan, kind: str, before: Skill, version: Version, by: str) -> Published:
    """The change that makes a version the active one, whatever it is called."""
    skill_id, number = before.id, version.version
    after = msgspec.structs.replace(before, status="active", active=version, seq=plan.next_seq, deleted_version=None)
    append(plan, kind, before, after, version, by)
    return Published(skill_id, number, version.digest, after.seq)


def deactivate(plan: WritePlan, before: Skill | None, skill_id: str, by: str) -> Published:
    """Takes a skill out of service; its versions stay and can be activated again."""
    if before is None or before.active is None:
        raise NotFound(f"there is no active skill {skill_id}")
    after = msgspec.structs.replace(
        before, status="inactive", active=None, seq=plan.next_seq, deleted_version=before.active.version
    )
    append(plan, "skill.deleted", before, after, before.active, by)
    return Published(skill_id, before.active.version, before.active.digest, after.seq)


async def read_for_write(
    connection: AsyncConnection, epoch: str, skill_ids: Collection[str]
) -> tuple[WritePlan, Skills]:
    """An empty plan behind the log's end, and those of the skills that exist."""
    plan = await open_plan(connection, epoch, {skill_id.partition("/")[0] for skill_id in skill_ids})
    skills: Skills = {}
    for some in _slices(sorted(skill_ids)):
        rows = await connection.execute(skills_query().where(schema.skills.c.id.in_(some)))
        skills.update((row.id, read_skill(row)) for row in rows)
    return plan, skills


async def open_plan(connection: AsyncConnection, epoch: str, owners: Collection[str]) -> WritePlan:
    """An empty plan that can append to the streams of these owners."""
    head, table = schema.change_head, schema.streams
    end = (await connection.execute(select(head.c.seq, head.c.hash).where(head.c.ns == NAMESPACE))).one()
    newest = {}
    for some in _slices(sorted(owners)):
        rows = await connection.execute(select(table).where((table.c.ns == NAMESPACE) & table.c.owner.in_(some)))
        newest.update({(row.topic, row.owner, row.visibility): row.change_id for row in rows})
    return WritePlan(epoch, LogEnd(end.seq, end.hash), newest)


def skills_query() -> Any:
    """Every skill joined with its active version's body."""
    table, versions = schema.skills, schema.versions
    joined = table.outerjoin(
        versions, (versions.c.skill_id == table.c.id) & (versions.c.version == table.c.active_version)
    )
    return select(table, versions.c.body).select_from(joined)


def read_skill(row: Any) -> Skill:
    return Skill(
        id=row.id,
        owner=row.owner,
        name=row.name,
        visibility=row.visibility,
        status=row.status,
        seq=row.seq,
        last_version=row.last_version,
        active=None if row.body is None else msgspec.json.decode(row.body, type=Version),
        pinned=tuple(int(number) for number in row.pinned.split(",")) if row.pinned else (),
        deleted_version=row.deleted_version,
    )


async def read_version(connection: AsyncConnection, skill_id: str, number: int) -> Version:
    """Raises `NotFound`."""
    if not 0 < number <= _NUMBER_MAX:
        raise NotFound(f"{skill_id} has no version {number}")
    table = schema.versions
    body = await connection.scalar(
        select(table.c.body).where((table.c.skill_id == skill_id) & (table.c.version == number))
    )
    if body is None:
        raise NotFound(f"{skill_id} has no version {number}")
    return msgspec.json.decode(body, type=Version)


def append(
    plan: WritePlan, kind: str, before: Skill | None, after: Skill, version: Version, by: str, **facts: Any
) -> None:
    """The skill's new state, its row and, when the set of callable tools changed with it, that of the tools.

    `version` is the one the change is about; `facts` are further members of what subscribers see.
    """
    plan.put_skill(after)
    plan.append(
        topic="skills",
        kind=kind,
        dep=f"skill:{after.id}",
        owner=after.owner,
        visibility=after.visibility,
        data={
            "id": after.id,
            "owner": after.owner,
            "name": after.name,
            "version": version.version,
            "digest": version.digest,
            "description": version.description,
            "grade": version.grade,
            "status": after.status,
            "active_version": after.active.version if after.active else None,
            "by": by,
            **facts,
        },
        skill=after,
    )
    tools_before, tools_after = _tools(before), _tools(after)
    if tools_before != tools_after:
        plan.append(
            topic="tools",
            kind="tools.changed",
            dep=f"tools:{after.id}",
            owner=after.owner,
            visibility=after.visibility,
            data={
                "skill": after.id,
                "version": after.active.version if after.active else None,
                "tools": [tool.name for tool in tools_after],
                "by": by,
            },
        )


def _status_unserved(before: Skill | None, draft: Draft) -> Status:
    """Of a skill that this version leaves without an active one: a deleted one stays deleted."""
    if before is not None and before.status == "inactive":
        return "inactive"
    return "quarantined" if draft.grade == "quarantined" else "draft"


def _tools(skill: Skill | None) -> tuple[ToolSpec, ...]:
    return skill.active.tools if skill and skill.active else ()


def _slices(keys: list[str]) -> list[list[str]]:
    return [keys[start : start + KEYS_MAX] for start in range(0, len(keys), KEYS_MAX)]
