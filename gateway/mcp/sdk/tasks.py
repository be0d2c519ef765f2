"""The tasks extension (SEP-2663): a call that takes long is answered with a handle, and its result is fetched later.

A task is a run (`services/runs`). Which tools may become one, their packages declare; when, time decides: what is
over within `GRACE_S`, questions included, is answered as any other call.
"""

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import decode_header_value
from pydantic import Field

from gateway.mcp import results
from gateway.mcp.questions import questions_of, require, response_problem
from gateway.mcp.sdk.context import RequestContext, answering, caller_of, principal_of
from gateway.mcp.sdk.dialogue import Questions, capabilities_of, requiring, told
from gateway.mcp.sdk.legacy import LegacySessions
from gateway.mcp.tasks import detailed, shown
from gateway.mcp.wire import COMPLETE, MODERN, TASKS_EXTENSION
from services.caller import Caller
from services.execution.dialogue import Dialogue
from services.failures import NotFound
from services.runs.nouns import Run
from services.runs.runs import Runs
from services.skills.tools import CallableTool


class TaskParams(types.RequestParams):
    task_id: str = Field(alias="taskId", max_length=128)


class UpdateParams(TaskParams):
    input_responses: dict[str, Any] = Field(alias="inputResponses")


def is_declared(context: RequestContext) -> bool:
    """Whether this very request says that its client knows tasks; a session of before cannot."""
    return context.protocol_version >= MODERN and TASKS_EXTENSION in capabilities_of(context).get("extensions", {})


def not_declared() -> MCPError:
    missing: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS_EXTENSION: {}}}}
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
                return {"resultType": "task", **shown(answer)}
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
