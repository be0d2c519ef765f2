"""How a database of an older schema becomes one of this schema: forward only, one numbered step after the other.

A step adds and fills; it neither renames nor drops, so that a replica of the version before goes on
beside it. It holds what it needs of its schema itself: `schema.py` is always the newest one.
`docs/decisions/0030-numbered-steps.md` says why there is no migration tool.
"""

from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection

from services.storage.migrations import step_2, step_3, step_4


class Step(NamedTuple):
    """`to` is the schema that `apply` leads to, from the one before it, in a transaction of the caller's."""

    to: int
    summary: str
    apply: Callable[[Connection], None]


class Migration(NamedTuple):
    """The schema that was found, None for a database without tables, and the steps from there."""

    found: int | None
    steps: list[Step]


STEPS = (
    Step(2, "usage, pins and what a restore brings back", step_2.apply),
    Step(3, "runs, and documents that all replicas share", step_3.apply),
    Step(4, "the audit log", step_4.apply),
)


def steps_from(found: int) -> list[Step]:
    return [step for step in STEPS if step.to > found]
