"""The write that changes a run: the run as it will be, and its row in the change log."""

from collections.abc import Callable

import msgspec

from services.clock import utc_now
from services.runs.nouns import Run
from services.storage.plan import Row, WritePlan

TOPIC = "runs"

Rule = Callable[[Run], Run | None]


def changed(plan: WritePlan, before: Run, rule: Rule) -> Run:
    """Answers the run as it will be; as it is when the rule has nothing to change."""
    after = rule(before)
    if after is None:
        return before
    return put(plan, msgspec.structs.replace(after, changed_at=utc_now()))


def put(plan: WritePlan, run: Run) -> Run:
    """Private, because a run's id is for its principal alone. One dep for all: nothing of a run is cached."""
    run = msgspec.structs.replace(run, seq=plan.next_seq)
    plan.runs[run.id] = row_of(run)
    plan.append(
        topic=TOPIC,
        kind=f"run.{run.status}",
        dep="runs",
        owner=owner_of(run),
        visibility="private",
        data={"id": run.id, "status": run.status},
    )
    return run


def row_of(run: Run) -> Row:
    return {
        "id": run.id,
        "principal": run.principal,
        "status": run.status,
        "expires_at": run.expires_at,
        "body": msgspec.json.encode(run),
    }


def read(body: bytes) -> Run:
    return msgspec.json.decode(body, type=Run)


def owner_of(run: Run) -> str:
    """Whose stream its rows are in."""
    return run.skill.partition("/")[0]
