"""The writes that change a skill, each inside the caller's transaction, each with its change rows."""

from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.clock import utc_now
from services.failures import Conflict, Invalid, NotFound
from services.models import Draft, LedgerEntry, Published, Skill, ToolSpec, Version
from services.storage import schema
from services.storage.append import ChangeWriter


async def publish(connection: AsyncConnection, log: ChangeWriter, draft: Draft) -> Published:
    """One draft: its version, the active pointer, its ledger entry and its change rows."""
    if draft.source_path is not None:
        entry = LedgerEntry(draft.source, draft.source_path, draft.digest, draft.skill_id, draft.diagnostics)
        await write_ledger(connection, entry)
    before = await find_skill(connection, draft.skill_id)
    active = before.active if before else None
    if draft.if_match is not None and (active is None or active.digest != draft.if_match):
        raise Conflict(
            f"{draft.skill_id} is not at the digest you started from",
            active_digest=active.digest if active else None,
            active_version=active.version if active else None,
        )
    if before and active and active.digest == draft.digest:
        return Published(before.id, active.version, active.digest, before.seq, changed=False)
    version = Version(
        version=(before.last_version if before else 0) + 1,
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
    await connection.execute(
        insert(schema.versions).values(
            skill_id=draft.skill_id,
            version=version.version,
            digest=version.digest,
            body=msgspec.json.encode(version),
        )
    )
    served = draft.activate and draft.grade != "quarantined"
    now_active = version if served else active
    after = Skill(
        id=draft.skill_id,
        owner=draft.owner,
        name=draft.name,
        # A version that is only kept must neither expose nor hide the one that is served.
        visibility=draft.visibility if served or before is None else before.visibility,
        status="active" if now_active else "quarantined" if draft.grade == "quarantined" else "draft",
        seq=log.next_seq,
        last_version=version.version,
        active=now_active,
    )
    await _write_skill(connection, after, is_new=before is None)
    kind = "skill.quarantined" if draft.grade == "quarantined" else "skill.published"
    await _append(log, kind, before, after, version, draft.created_by)
    return Published(after.id, version.version, version.digest, after.seq)


async def activate(connection: AsyncConnection, log: ChangeWriter, skill_id: str, number: int, by: str) -> Published:
    """Moves the active pointer to a version that exists and can be served."""
    before = await find_skill(connection, skill_id)
    if before is None:
        raise NotFound(f"there is no skill {skill_id}")
    version = await read_version(connection, skill_id, number)
    if version.grade == "quarantined":
        raise Invalid(f"version {number} of {skill_id} is quarantined and cannot be served")
    if before.active and before.active.version == number:
        return Published(skill_id, number, version.digest, before.seq, changed=False)
    after = msgspec.structs.replace(before, status="active", active=version, seq=log.next_seq)
    await _write_skill(connection, after, is_new=False)
    await _append(log, "skill.activated", before, after, version, by)
    return Published(skill_id, number, version.digest, after.seq)


async def deactivate(connection: AsyncConnection, log: ChangeWriter, skill_id: str, by: str) -> Published:
    """Takes a skill out of service; its versions stay and can be activated again."""
    before = await find_skill(connection, skill_id)
    if before is None or before.active is None:
        raise NotFound(f"there is no active skill {skill_id}")
    after = msgspec.structs.replace(before, status="inactive", active=None, seq=log.next_seq)
    await _write_skill(connection, after, is_new=False)
    await _append(log, "skill.deleted", before, after, before.active, by)
    return Published(skill_id, before.active.version, before.active.digest, after.seq)


async def find_skill(connection: AsyncConnection, skill_id: str) -> Skill | None:
    row = (await connection.execute(skills_query().where(schema.skills.c.id == skill_id))).one_or_none()
    return None if row is None else read_skill(row)


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
    )


async def read_version(connection: AsyncConnection, skill_id: str, number: int) -> Version:
    """Raises `NotFound`."""
    table = schema.versions
    body = await connection.scalar(
        select(table.c.body).where((table.c.skill_id == skill_id) & (table.c.version == number))
    )
    if body is None:
        raise NotFound(f"{skill_id} has no version {number}")
    return msgspec.json.decode(body, type=Version)


async def write_ledger(connection: AsyncConnection, entry: LedgerEntry) -> None:
    values = {
        "digest": entry.digest,
        "skill_id": entry.skill_id,
        "diagnostics": msgspec.json.encode(entry.diagnostics),
    }
    await connection.execute(
        upsert(schema.ledger)
        .values(source=entry.source, path=entry.path, **values)
        .on_conflict_do_update(index_elements=["source", "path"], set_=values)
    )


async def _write_skill(connection: AsyncConnection, skill: Skill, *, is_new: bool) -> None:
    values = {
        "visibility": skill.visibility,
        "status": skill.status,
        "seq": skill.seq,
        "last_version": skill.last_version,
        "active_version": skill.active.version if skill.active else None,
    }
    if is_new:
        await connection.execute(
            insert(schema.skills).values(id=skill.id, owner=skill.owner, name=skill.name, **values)
        )
    else:
        await connection.execute(update(schema.skills).where(schema.skills.c.id == skill.id).values(**values))


async def _append(log: ChangeWriter, kind: str, before: Skill | None, after: Skill, version: Version, by: str) -> None:
    """The row of the skill and, when the set of callable tools changed with it, that of the tools."""
    await log.append(
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
        },
        skill=after,
    )
    tools_before, tools_after = _tools(before), _tools(after)
    if tools_before != tools_after:
        await log.append(
            topic="tools",
            kind="tools.changed",
            dep=f"tools:{after.id}",
            owner=after.owner,
            visibility=after.visibility,
            data={
                "skill": after.id,
                "version": after.active.version if after.active else None,
                "tools": [tool.name for tool in tools_after],
            },
        )


def _tools(skill: Skill | None) -> tuple[ToolSpec, ...]:
    return skill.active.tools if skill and skill.active else ()
