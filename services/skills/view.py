"""The catalog as one replica sees it: every skill in memory, kept current by the log's rows.

One publish among 2,400 skills costs one entry. Lists are made from entries that are encoded
once, when they change.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence

import msgspec

from services.caller import Sees
from services.failures import NotFound
from services.models import Change, Skill
from services.ports import CatalogSnapshot


class Entry(msgspec.Struct, frozen=True):
    """A skill and its line in a catalog page, encoded."""

    skill: Skill
    line: bytes


class CatalogView:
    """A `ChangeSink`; reads are plain calls that see one moment of the log."""

    def __init__(self, snapshot: CatalogSnapshot) -> None:
        self.restart(snapshot)

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._entries = {skill.id: _entry(skill) for skill in snapshot.skills}
        self._ids = sorted(self._entries)
        self.revision = snapshot.position.seq

    def __len__(self) -> int:
        return len(self._ids)

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.skill is None:
                continue
            self._put(change.skill)
            self.revision = change.seq

    def _put(self, skill: Skill) -> None:
        known = skill.id in self._entries
        if skill.status == "removed":
            if known:
                del self._entries[skill.id]
                del self._ids[bisect_left(self._ids, skill.id)]
            return
        if not known:
            insort(self._ids, skill.id)
        self._entries[skill.id] = _entry(skill)

    def __iter__(self) -> Iterator[Skill]:
        """Every skill, served or not, in id order."""
        return (self._entries[skill_id].skill for skill_id in self._ids)

    def find(self, skill_id: str) -> Skill | None:
        entry = self._entries.get(skill_id)
        return entry.skill if entry else None

    def get(self, skill_id: str, sees: Sees) -> Skill:
        """Raises `NotFound`, also for a skill this caller may not see."""
        skill = self.find(skill_id)
        if skill is None or not sees(skill):
            raise NotFound(f"there is no skill {skill_id}", skill=skill_id)
        return skill

    def served(self, sees: Sees, after: str = "") -> Iterator[Skill]:
        """Skills with an active version, in id order, from the one after the id `after` on; the catalog may
        change meanwhile."""
        for skill_id in self._ids[bisect_right(self._ids, after) :]:
            skill = self.find(skill_id)
            if skill is not None and skill.active is not None and skill.status == "active" and sees(skill):
                yield skill

    def page(
        self, sees: Sees, *, limit: int, after: str = "", status: str | None = None, owner: str | None = None
    ) -> tuple[list[bytes], str | None]:
        """Encoded lines in id order and the id to go on after, None at the end."""
        start = bisect_right(self._ids, after) if after else 0
        if owner is not None:
            start = max(start, bisect_left(self._ids, f"{owner}/"))
        lines: list[bytes] = []
        last = ""
        for at in range(start, len(self._ids)):  # a slice would copy the rest of the catalog for every page
            skill_id = self._ids[at]
            entry = self._entries[skill_id]
            if owner is not None and entry.skill.owner != owner:
                break
            if (status is not None and entry.skill.status != status) or not sees(entry.skill):
                continue
            if len(lines) == limit:
                return lines, last
            lines.append(entry.line)
            last = skill_id
        return lines, None


def summary(skill: Skill) -> dict[str, object]:
    """The members every listing of a skill has."""
    active = skill.active
    return {
        "id": skill.id,
        "owner": skill.owner,
        "name": skill.name,
        "description": active.description if active else "",
        "version": active.version if active else None,
        "digest": active.digest if active else None,
        "grade": active.grade if active else None,
        "status": skill.status,
        "seq": skill.seq,
        "updated_at": active.created_at if active else None,
    }


def _entry(skill: Skill) -> Entry:
    return Entry(skill, msgspec.json.encode(summary(skill)))
