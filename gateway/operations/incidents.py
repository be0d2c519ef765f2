"""Incidents: errors that were seen, what helps against them, and which calls people warn of."""

from typing import Any, Literal

import msgspec
from pydantic import ConfigDict, Field

from gateway.envelope import Reply, reply
from gateway.operations.table import PAGE_MAX, Context, JsonObject, Operation, Params
from services.errors.nouns import ErrorClass, IncidentQuery, Level, Solution
from services.errors.solutions import wilson

_ID = r"^[0-9a-f]{32}$"
_CURSOR = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\.[0-9a-f]{32}$"
# So that whoever wrote it can read it from the views and has been sent its event.
_WRITE_SEEN_S = 1.0
_SAID: dict[Level, str] = {"none": "none", "warn": "warning", "block": "block"}


class ListIncidents(Params):
    # By name too: the REST route hands over what it has parsed under the field's own name.
    model_config = ConfigDict(populate_by_name=True)

    limit: int = Field(50, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(None, pattern=_CURSOR, description="`next_cursor` of the page before.")
    error_class: ErrorClass | None = Field(None, alias="class")


class IncidentParams(Params):
    incident: str = Field(pattern=_ID, description="The incident's id.")


class AddSolution(IncidentParams):
    text: str = Field(min_length=1, max_length=2000, description="What to do about it.")


class ReportOutcome(IncidentParams):
    solution: str = Field(max_length=40, description="The id of the solution that was tried.")
    worked: bool


class MarkIncident(IncidentParams):
    level: Literal["none", "warn", "block"]


class CheckOperation(Params):
    tool: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$", examples=["main_hello-world_greet"])
    arguments: JsonObject = Field(default_factory=dict)


async def list_incidents(context: Context, params: ListIncidents) -> Reply:
    after = None
    if params.cursor is not None:
        at, _, id_ = params.cursor.rpartition(".")
        after = (at, id_)
    query = IncidentQuery(params.limit, params.error_class, after)
    shown, after = await context.replica.firewall.page(query, context.principal.viewer.sees)
    return reply({"items": [each.shown() for each in shown], "next_cursor": ".".join(after) if after else None})


async def get_incident(context: Context, params: IncidentParams) -> Reply:
    firewall = context.replica.firewall
    incident, _ = await firewall.incident(params.incident, context.principal.viewer.sees)
    solutions = [_solution(each) for each in await firewall.solutions(incident.id)]
    return reply({**incident.shown(), "solutions": solutions})


def _solution(solution: Solution) -> dict[str, Any]:
    """`rate` is what the order goes by: the lower bound of the share of tries that worked."""
    return {**msgspec.structs.asdict(solution), "rate": round(wilson(solution.worked, solution.tried), 4)}


async def add_solution(context: Context, params: AddSolution) -> Reply:
    principal = context.principal
    solution, seq = await context.replica.firewall.add_solution(
        params.incident, params.text, principal.id, principal.viewer.sees
    )
    context.replica.feed.committed(seq)
    await context.replica.feed.reach(seq, _WRITE_SEEN_S)
    return reply(_solution(solution), seq=seq)


async def report_outcome(context: Context, params: ReportOutcome) -> Reply:
    sees = context.principal.viewer.sees
    return reply(
        _solution(await context.replica.firewall.report_outcome(params.incident, params.solution, params.worked, sees))
    )


async def mark_incident(context: Context, params: MarkIncident) -> Reply:
    principal = context.principal
    incident, seq = await context.replica.firewall.mark(
        params.incident, params.level, principal.id, principal.viewer.sees
    )
    context.replica.feed.committed(seq)
    await context.replica.feed.reach(seq, _WRITE_SEEN_S)
    return reply(incident.shown(), seq=seq)


async def check_operation(context: Context, params: CheckOperation) -> Reply:
    sees = context.principal.viewer.sees
    tool = context.replica.tools.get(params.tool, sees)
    reasons = await context.replica.firewall.check(tool, params.arguments, sees)
    levels = {reason.level for reason in reasons}
    worst: Level = "block" if "block" in levels else "warn" if "warn" in levels else "none"
    items = [{**msgspec.to_builtins(reason), "level": _SAID[reason.level]} for reason in reasons]
    return reply({"level": _SAID[worst], "reasons": items})


OPERATIONS = (
    Operation(
        "list_incidents",
        "Errors of tool calls, the newest first.",
        "read",
        ("GET", "/incidents"),
        ListIncidents,
        list_incidents,
    ),
    Operation(
        "get_incident",
        "An incident and its solutions, the best first.",
        "read",
        ("GET", "/incidents/{incident}"),
        IncidentParams,
        get_incident,
    ),
    Operation(
        "add_solution",
        "Say what helps against an incident.",
        "publish",
        ("POST", "/incidents/{incident}/solutions"),
        AddSolution,
        add_solution,
    ),
    Operation(
        "report_outcome",
        "Say whether a solution worked.",
        "invoke",
        ("POST", "/incidents/{incident}/outcome"),
        ReportOutcome,
        report_outcome,
    ),
    Operation(
        "mark_incident",
        "Warn of, or block, calls like the one that failed.",
        "admin",
        ("POST", "/incidents/{incident}/level"),
        MarkIncident,
        mark_incident,
    ),
    Operation(
        "check_operation",
        "Whether people warn of this very call.",
        "read",
        ("POST", "/check-operation"),
        CheckOperation,
        check_operation,
    ),
)
