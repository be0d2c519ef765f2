"""The tasks extension (SEP-2663): a call that takes long is answered with a handle, and its result is fetched later.

A task is a run (`services/runs`). Which tools may become one, their packages declare; when, time decides: what is
over within `GRACE_S`, questions included, is answered as any other call.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import decode_header_value
from pydantic import Field

from gateway.mcp import results
from gateway.mcp.context import COMPLETE, MODERN, RequestContext, answering, caller_of, principal_of
from gateway.mcp.dialogue import (
    Questions,
    capabilities_of,
    questions_of,
    require,
    requiring,
    response_problem,
    told,
)
from gateway.mcp.legacy import LegacySessions
from gateway.mcp.streams import task_head
from gateway.principal import Principal
from notifier.protocol import error_object
from services.caller import Caller
from services.execution.dialogue import Dialogue
from services.failures import NotFound, ServiceError
from services.runs.nouns import Run, RunError
from services.runs.rules import MISSING_CAPABILITY
from services.runs.runs import Runs
from services.skills.tools import CallableTool

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 1000


class TaskParams(types.RequestParams):
    task_id: str = Field(alias="taskId", max_length=128)


class UpdateParams(TaskParams):
    input_responses: dict[str, Any] = Field(alias="inputResponses")


def is_declared(context: RequestContext) -> bool:
    """Whether this very request says that its client knows tasks; a session of before cannot."""
    return context.protocol_version >= MODERN and EXTENSION in capabilities_of(context).get("extensions", {})


def not_declared() -> MCPError:
    missing: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this needs a client that knows tasks", missing)


class TaskHandlers:
    """Handlers of `tasks/*`, and the calls that may become a task."""

    def __init__(self, runs: Runs, sessions: LegacySessions) -> None:
        self._runs = runs
        self._sessions = sessions

    async def call(
        self, context: RequestContext, tool: CallableTool, arguments: dict[str, Any], caller: Caller
    ) -> dict[str, Any]:
        """The call's result, or the task that it has become. Raises as `converse`."""
        capabilities = capabilities_of(context)
        given = context.params or {}
        dialogue = Dialogue(capabilities, given.get("inputResponses") or {}, given.get("requestState") or "")
        with requiring():
            require(capabilities, tool.spec.requires)
            answer = await told(
                context,
                self._sessions,
                dialogue,
                lambda dialogue: self._runs.call(tool, arguments, caller, dialogue, capabilities),
            )
            if isinstance(answer, Run):
                return {"resultType": "task", **_shown(answer)}
            questions = questions_of(answer.result, capabilities)
        if questions is not None:
            raise Questions(answer.result, questions)
        return results.answered(
            answer.result, answer.skill, answer.version, answer.digest, is_interactive=tool.spec.interactive
        )

    async def get(self, context: RequestContext, params: TaskParams) -> dict[str, Any]:
        return {**detailed(await self._own(context, params)), **COMPLETE}

    async def update(self, context: RequestContext, params: UpdateParams) -> dict[str, Any]:
        run = await self._own(context, params)
        for key, response in params.input_responses.items():
            question = run.open_questions.get(key)
            problem = response_problem(question, response) if question is not None else None
            if problem is not None:
                raise MCPError(types.INVALID_PARAMS, f"{key}: {problem}")
        with answering():
            await self._runs.answer(run.id, params.input_responses, caller_of(context), capabilities_of(context))
        return {**COMPLETE}

    async def cancel(self, context: RequestContext, params: TaskParams) -> dict[str, Any]:
        run = await self._own(context, params)
        with answering():
            await self._runs.cancel(run.id, run.principal)
        return {**COMPLETE}

    async def _own(self, context: RequestContext, params: TaskParams) -> Run:
        """The run, if it is this principal's; whose it is else, or whether it is, is not told."""
        if context.protocol_version < MODERN:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", context.method)
        _check_name(context, params.task_id)
        if not is_declared(context):
            raise not_declared()
        principal = principal_of(context)
        with answering():
            principal.require("invoke")
            try:
                return await self._runs.get(params.task_id, principal.id)
            except NotFound as error:
                raise MCPError(types.INVALID_PARAMS, "there is no such task; it may have expired") from error


def _check_name(context: RequestContext, task_id: str) -> None:
    """The routing header must name the task (SEP-2663); the SDK knows this of its own methods only."""
    if context.request is not None and decode_header_value(context.request.headers.get("mcp-name")) != task_id:
        message = "mcp-name header does not match the request body's 'taskId' parameter"
        raise MCPError(types.HEADER_MISMATCH, message)


def check_listens(context: RequestContext) -> None:
    """A client that asks to be told of tasks has to know them. Raises `MCPError`."""
    asked = (context.params or {}).get("notifications", {})
    if asked.get("taskIds") and not is_declared(context):
        raise not_declared()


async def own_tasks(runs: Runs, task_ids: Iterable[str], principal: Principal) -> list[str]:
    """Those of the tasks that are this principal's."""
    own = []
    for task_id in task_ids:
        with suppress(NotFound):
            own.append((await runs.get(task_id, principal.id)).id)
    return own


async def task_heads(runs: Runs, task_ids: Iterable[str]) -> dict[str, bytes]:
    """Notices of how these tasks are now; of those that are gone there is none."""
    heads = {}
    for task_id in task_ids:
        with suppress(NotFound):
            heads[task_id] = task_head(detailed(await runs.state(task_id)))
    return heads


def detailed(run: Run) -> dict[str, Any]:
    """A task with what its status brings with it."""
    task = _shown(run)
    match run.status:
        case "input_required":
            return {**task, "inputRequests": run.open_questions}
        case "completed":
            return {**task, "result": _result(run)}
        case "failed":
            assert run.error is not None
            return {**task, "statusMessage": run.error.message, "error": _error(run.error)}
    return task


def _shown(run: Run) -> dict[str, Any]:
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
    code = types.MISSING_REQUIRED_CLIENT_CAPABILITY if missing else types.INTERNAL_ERROR
    return error_object(code, error.message, {"code": error.code, **error.facts})
