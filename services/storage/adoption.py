"""The rule of the write that takes over a skill of another deployment, with its numbers and its history."""

from collections.abc import Sequence

import msgspec

from services.failures import Conflict
from services.models import Published, Skill, Version
from services.storage.plan import WritePlan
from services.storage.publishing import append


def adopt(plan: WritePlan, before: Skill | None, skill: Skill, versions: Sequence[Version]) -> Published:
    """Adds these versions, which follow those that are there, and makes the skill what `skill` says.

    `before` is the skill as it is here, None for a new one.
    """
    last = before.last_version if before else 0
    if versions and versions[0].version <= last:
        raise Conflict(f"{skill.id} has {last} versions here already", last_version=last)
    shown = skill.active or (versions[-1] if versions else None)
    if shown is None:
        raise Conflict(f"{skill.id} has no version to take over")
    after = msgspec.structs.replace(skill, seq=plan.next_seq)
    for version in versions:
        plan.add_version(skill.id, version)
    append(plan, "skill.adopted", before, after, shown, "migration")
    return Published(skill.id, shown.version, shown.digest, after.seq)
