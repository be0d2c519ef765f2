"""Calls that outlived their request: their state, and the end of one."""

from typing import Any

from pydantic import Field

from gateway.envelope import Reply, reply
from gateway.operations.table import PAGE_MAX, Context, Operation, Params
from services.runs.nouns import Run, RunQuery


class RunParams(Params):
    id: str = Field(pattern=r"^[0-9a-f]{1,64}$", description="The run's id, which is the task's over MCP.")


class ListRuns(Params):
    limit: int = Field(50, ge=1, le=PAGE_MAX)
    before: str | None = Field(None, max_length=64, description="`next_cursor` of the page before.")


async def list_runs(context: Context, params: ListRuns) -> Reply:
    found = await context.replica.runs.list(RunQuery(context.principal.id, params.limit, params.before))
    after = found[-1].id if len(found) == params.limit else None
    return reply({"items": [_shown(run) for run in found], "next_cursor": after})


async def get_run(context: Context, params: RunParams) -> Reply:
    return reply(_shown(await context.replica.runs.get(params.id, context.principal.id)))


async def cancel_run(context: Context, params: RunParams) -> Reply:
    return reply(_shown(await context.replica.runs.cancel(params.id, context.principal.id)))


def _shown(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status,
        "tool": run.tool,
        "skill": run.skill,
        "version": run.version,
        "digest": run.digest,
        "created_at": run.created_at,
        "changed_at": run.changed_at,
        "expires_at": run.expires_at,
        "questions": run.open_questions,
        "result": run.result,
        "error": run.error,
    }


OPERATIONS = (
    Operation("list_runs", "Your runs, newest first.", "invoke", ("GET", "/runs"), ListRuns, list_runs),
    Operation("get_run", "A run of yours.", "invoke", ("GET", "/runs/{id}"), RunParams, get_run),
    Operation(
        "cancel_run",
        "End a run of yours, if it is not over.",
        "invoke",
        ("POST", "/runs/{id}/cancel"),
        RunParams,
        cancel_run,
    ),
)
