"""Moving a catalog from one storage to another: all versions with their numbers, what is active, all files,
the ledgers of watched folders and the invocations that are kept.

A version is moved as it is, so its number, digest, manifest, author and time stay. The target's change
log is its own: it says `skill.adopted`. A migration that was interrupted is started again: what is there
already, and is the same, is not written a second time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from services.failures import Conflict
from services.models import Skill, Version
from services.ports import BlobStore, InvocationQuery, MetadataStore

# Versions in one write: with their parts they must fit into a transaction.
_VERSIONS_MAX = 10
_BLOBS_MAX = 32
_INVOCATIONS_MAX = 500

Progress = Callable[[str], None]


class Side(NamedTuple):
    """A storage that is migrated from or to."""

    store: MetadataStore
    blobs: BlobStore


class Moved(NamedTuple):
    """What was compared at the end, and is equal on both sides."""

    skills: int
    versions: int
    invocations: int


async def migrate(source: Side, target: Side, progress: Progress) -> Moved:
    """Raises `Conflict` before anything is written when the target holds another catalog."""
    skills = sorted((await source.store.snapshot()).skills, key=lambda skill: skill.id)
    there = {skill.id: skill for skill in (await target.store.snapshot()).skills}
    if foreign := sorted(there.keys() - {skill.id for skill in skills}):
        raise Conflict(f"the target is not empty and holds another catalog: {foreign[0]} is not in the source")
    missing = {}
    for skill in skills:
        missing[skill.id] = await _missing(source, target, skill.id) if skill.id in there else await _all(source, skill)
    for number, skill in enumerate(skills, start=1):
        versions = missing[skill.id]
        await _move_files(source, target, versions)
        await _move_skill(target, skill, versions, there.get(skill.id))
        progress(f"{number}/{len(skills)} {skill.id}: {len(versions)} versions")
    sources = {version.source for versions in missing.values() for version in versions}
    for name in sorted(sources):
        await target.store.note([*(await source.store.ledger(name)).values()])
    invocations = await _move_invocations(source.store, target.store, progress)
    return Moved(len(skills), await _compare(source, target, skills), invocations)


async def _all(side: Side, skill: Skill) -> list[Version]:
    return (await side.store.versions(skill.id))[::-1]


async def _missing(source: Side, target: Side, skill_id: str) -> list[Version]:
    """The versions that the target lacks, oldest first; those it has must be the source's first ones."""
    ours = (await source.store.versions(skill_id))[::-1]
    theirs = (await target.store.versions(skill_id))[::-1]
    if ours[: len(theirs)] != theirs:
        raise Conflict(f"the target is not empty and holds another catalog: its versions of {skill_id} differ")
    return ours[len(theirs) :]


async def _move_files(source: Side, target: Side, versions: Sequence[Version]) -> None:
    names = sorted({entry.sha256 for version in versions for entry in version.manifest})
    for start in range(0, len(names), _BLOBS_MAX):
        await target.blobs.put_many({
            name: await source.blobs.get(name) for name in names[start : start + _BLOBS_MAX]
        })  # fmt: skip


async def _move_skill(target: Side, skill: Skill, versions: Sequence[Version], there: Skill | None) -> None:
    """In several writes where one would be too large; the skill is served from the last one on."""
    while len(versions) > _VERSIONS_MAX:
        some, versions = versions[:_VERSIONS_MAX], versions[_VERSIONS_MAX:]
        waiting = msgspec.structs.replace(skill, status="draft", active=None, last_version=some[-1].version)
        await target.store.adopt(waiting, some)
    if versions or there is None or not _same(skill, there):
        await target.store.adopt(skill, versions)


def _same(skill: Skill, other: Skill) -> bool:
    return msgspec.structs.replace(skill, seq=other.seq) == other


async def _move_invocations(source: MetadataStore, target: MetadataStore, progress: Progress) -> int:
    moved = 0
    before: str | None = None
    while True:
        some = await source.invocations(InvocationQuery(_INVOCATIONS_MAX, before=before))
        if not some:
            return moved
        await target.record(some)
        moved += len(some)
        before = some[-1].id
        progress(f"{moved} invocations")


async def _compare(source: Side, target: Side, skills: Sequence[Skill]) -> int:
    """How many versions are the same on both sides, digest and manifest included; raises `Conflict`."""
    count = 0
    there: Mapping[str, Skill] = {skill.id: skill for skill in (await target.store.snapshot()).skills}
    for skill in skills:
        ours, theirs = await source.store.versions(skill.id), await target.store.versions(skill.id)
        if ours != theirs or skill.id not in there or not _same(skill, there[skill.id]):
            raise Conflict(f"{skill.id} is not the same in the target: was it changed meanwhile? Migrate again")
        count += len(ours)
    return count
