"""The row that tells who had packages read again, or cached records forgotten.

It changes nothing of the catalog: no view, cached record or client's list goes by its topic or its dep.
"""

from services.ports import ReloadKind
from services.storage.plan import WritePlan

TOPIC = "reloads"


def owner_of(skill_id: str | None) -> str:
    """Whose stream the row is in; of no owner for what concerns all skills."""
    return skill_id.partition("/")[0] if skill_id else ""


def put(plan: WritePlan, kind: ReloadKind, skill_id: str | None, by: str, counts: dict[str, int]) -> int:
    """Answers the seq of the row, which is private: it names who works on what."""
    return plan.append(
        topic=TOPIC,
        kind=kind,
        dep=f"{TOPIC}:{skill_id}" if skill_id else TOPIC,
        owner=owner_of(skill_id),
        visibility="private",
        data={"skill": skill_id, "by": by, **counts},
    )
