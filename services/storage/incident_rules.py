"""The rules of the writes that change solutions and levels: from what was read to the rows that will be written."""

from typing import Any

import msgspec

from services.errors.nouns import Incident, Level, Solution
from services.failures import Conflict
from services.models import Visibility
from services.storage.plan import WritePlan

SOLUTIONS_MAX = 50
TOPIC = "solutions"


def add_solution(
    plan: WritePlan, incident: Incident, count: int, solution: Solution, owner: str, visibility: Visibility
) -> int:
    """Answers the seq of its change; `count` is how many the incident has already."""
    if count >= SOLUTIONS_MAX:
        raise Conflict(f"this incident has {count} solutions already", code="too_many_solutions")
    plan.solutions.append(msgspec.structs.asdict(solution))
    data = {"solution": solution.id, "text": solution.text, "by": solution.author}
    return _append(plan, "solution.added", incident, owner, visibility, data)


def mark(
    plan: WritePlan, before: Incident, level: Level, by: str, owner: str, visibility: Visibility
) -> tuple[Incident, int]:
    """Answers the incident as it will be and the seq of the change."""
    incident = msgspec.structs.replace(before, level=level)
    plan.levels[incident.id] = level
    return incident, _append(plan, "incident.marked", incident, owner, visibility, {"level": level, "by": by})


def _append(
    plan: WritePlan, kind: str, incident: Incident, owner: str, visibility: Visibility, data: dict[str, Any]
) -> int:
    about = {"incident": incident.id, "class": incident.error_class, "tool": incident.tool}
    return plan.append(
        topic=TOPIC,
        kind=kind,
        dep=f"incident:{incident.id}",
        owner=owner,
        visibility=visibility,
        data={**about, "skill": incident.skill, "pattern": incident.pattern, **data},
    )
