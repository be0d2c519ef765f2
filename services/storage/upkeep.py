"""The rules of the writes that keep a skill's versions in order: restore, remove, pin, prune.

As in `publishing.py` they are pure: from what was read to the rows that will be written.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import select, tuple_

from services.failures import Conflict
from services.models import Published, Skill, Version
from services.storage import schema
from services.storage.database import Database
from services.storage.plan import WritePlan
from services.storage.publishing import append, put_in_service

# Versions read at once for the names of their blobs; a manifest has at most 512 of them.
_PAGE = 200


class _Named(msgspec.Struct):
    sha256: str


class _Manifest(msgspec.Struct):
    """The part of a version's body that names blobs."""

    manifest: list[_Named]


def version_to_restore(before: Skill) -> int:
    """The version that was active when the skill was deleted. Raises `Conflict`."""
    if before.deleted_version is None:
        raise Conflict(f"{before.id} is not deleted: it is {before.status}", skill_status=before.status)
    return before.deleted_version


def version_to_name(before: Skill) -> int:
    """The version that its removal tells of."""
    return before.active.version if before.active else before.deleted_version or before.last_version


def restore(plan: WritePlan, before: Skill, version: Version, by: str) -> Published:
    return put_in_service(plan, "skill.restored", before, version, by)


def remove(plan: WritePlan, before: Skill, version: Version, by: str) -> Published:
    """Leaves the number of the last version and nothing else; `version` is what the change tells of."""
    after = msgspec.structs.replace(
        before, status="removed", active=None, seq=plan.next_seq, pinned=(), deleted_version=None
    )
    plan.remove(before.id)
    append(plan, "skill.removed", before, after, version, by)
    return Published(before.id, version.version, version.digest, after.seq)


def pin(plan: WritePlan, before: Skill, version: Version, pinned: bool, by: str) -> Published:
    number = version.version
    if pinned == (number in before.pinned):
        return Published(before.id, number, version.digest, before.seq, changed=False)
    numbers = {*before.pinned, number} if pinned else {*before.pinned} - {number}
    after = msgspec.structs.replace(before, pinned=tuple(sorted(numbers)), seq=plan.next_seq)
    kind = "skill.pinned" if pinned else "skill.unpinned"
    append(plan, kind, before, after, version, by, pinned=after.pinned)
    return Published(before.id, number, version.digest, after.seq)


def remove_version(plan: WritePlan, before: Skill, version: Version, by: str) -> Published:
    number = version.version
    reason = None
    if before.active is not None and before.active.version == number:
        reason = "it is the active one: activate another first"
    elif number in before.pinned:
        reason = "it is pinned"
    elif number == before.deleted_version:
        reason = "a restore would bring it back: remove the skill"
    elif before.active is None and before.deleted_version is None and number == before.last_version:
        reason = "it is what waits to be activated: remove the skill"
    if reason is not None:
        raise Conflict(f"version {number} of {before.id} stays: {reason}", version=number)
    plan.prune(before.id, number)
    after = msgspec.structs.replace(before, seq=plan.next_seq)
    append(plan, "skill.pruned", before, after, version, by, versions=[number])
    return Published(before.id, number, version.digest, after.seq)


def prune(plan: WritePlan, before: Skill, numbers: Sequence[int], newest: Version, keep: int) -> int:
    """`numbers` are those of all versions, newest first."""
    kept = {*before.pinned, before.deleted_version, before.active.version if before.active else None}
    gone = [number for number in numbers[max(1, keep) :] if number not in kept]
    for number in gone:
        plan.prune(before.id, number)
    if gone:
        after = msgspec.structs.replace(before, seq=plan.next_seq)
        append(plan, "skill.pruned", before, after, newest, "retention", versions=sorted(gone))
    return len(gone)


async def blobs_in_use(database: Database) -> AsyncIterator[str]:
    """Page by page, each in a snapshot of its own, so that no snapshot is held while the caller works."""
    table = schema.versions
    key = tuple_(table.c.skill_id, table.c.version)
    after: tuple[str, int] | None = None
    while True:
        page: Any = select(table).order_by(table.c.skill_id, table.c.version).limit(_PAGE)
        if after is not None:
            page = page.where(key > after)
        async with database.reading() as connection:
            rows = (await connection.execute(page)).all()
        for row in rows:
            for entry in msgspec.json.decode(row.body, type=_Manifest).manifest:
                yield entry.sha256
        if len(rows) < _PAGE:
            return
        after = (rows[-1].skill_id, rows[-1].version)
