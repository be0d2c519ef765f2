"""Tasks (SEP-2663) as they are shown, and who may listen to what: a task is a run (`services/runs`)."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from gateway.mcp import results
from gateway.mcp.streams import Filter, ListenStreams, task_head
from gateway.mcp.wire import INTERNAL_ERROR, MISSING_REQUIRED_CLIENT_CAPABILITY
from gateway.principal import Principal
from notifier.protocol import error_object
from services.failures import NotFound, ServiceError
from services.runs.nouns import Run, RunError
from services.runs.rules import MISSING_CAPABILITY
from services.runs.runs import Runs

POLL_MS = 1000


async def own_tasks(runs: Runs, task_ids: Iterable[str], principal: Principal) -> list[str]:
    """Of another's tasks nothing is said, not even that they are there."""
    own = []
    for task_id in task_ids:
        with suppress(NotFound):
            own.append((await runs.get(task_id, principal.id)).id)
    return own


class Admitted(NamedTuple):
    """What a client may listen to of what it asked for, and frames of how its tasks are now."""

    wanted: Filter
    task_states: Callable[[], Awaitable[list[bytes]]]


async def admitted(streams: ListenStreams, runs: Runs, wanted: Filter, principal: Principal) -> Admitted:
    """Raises `Exhausted`."""
    streams.admit(wanted, principal)
    own = await own_tasks(runs, wanted.task_ids, principal)

    async def task_states() -> list[bytes]:
        return [*(await task_heads(runs, own)).values()]

    return Admitted(msgspec.structs.replace(wanted, task_ids=own), task_states)


async def task_heads(runs: Runs, task_ids: Iterable[str]) -> dict[str, bytes]:
    """Notices of how these tasks are now; of those that are gone there is none."""
    heads = {}
    for task_id in task_ids:
        with suppress(NotFound):
            heads[task_id] = task_head(detailed(await runs.state(task_id)))
    return heads


def detailed(run: Run) -> dict[str, Any]:
    """A task with what its status brings with it."""
    task = shown(run)
    match run.status:
        case "input_required":
            return {**task, "inputRequests": run.open_questions}
        case "completed":
            return {**task, "result": _result(run)}
        case "failed":
            assert run.error is not None
            return {**task, "statusMessage": run.error.message, "error": _error(run.error)}
    return task


def shown(run: Run) -> dict[str, Any]:
    lasts = datetime.fromisoformat(run.expires_at) - datetime.fromisoformat(run.created_at)
    return {
        "taskId": run.id,
        "status": run.status,
        "createdAt": run.created_at,
        "lastUpdatedAt": run.changed_at,
        "ttlMs": round(lasts.total_seconds() * 1000),
        "pollIntervalMs": POLL_MS,
    }


def _result(run: Run) -> dict[str, Any]:
    if run.error is not None:
        return results.failed(ServiceError(run.error.message, code=run.error.code, **run.error.facts))
    try:
        return results.answered(run.result, run.skill, run.version, run.digest, is_interactive=run.is_interactive)
    except ServiceError as error:
        return results.failed(error)


def _error(error: RunError) -> dict[str, object]:
    missing = error.code == MISSING_CAPABILITY
    code = MISSING_REQUIRED_CLIENT_CAPABILITY if missing else INTERNAL_ERROR
    return error_object(code, error.message, {"code": error.code, **error.facts})
