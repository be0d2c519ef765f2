"""An interactive tool's talk with its client, in both eras.

A tool that has to ask returns its questions (MRTR, SEP-2322). A client of 2026-07-28 gets them as
the answer and calls again; one of before is asked over its own request's stream, and the tool is
called again here. No worker is held while a person thinks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import mcp_types as types
import structlog
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata

from gateway.mcp.questions import question_and_answer, questions_of, require
from gateway.mcp.sdk.context import RequestContext
from gateway.mcp.sdk.legacy import LegacySessions
from gateway.mcp.wire import MODERN
from services.execution.calls import CallAnswer
from services.execution.dialogue import Detach, Dialogue, Log, Progress
from services.failures import Exhausted, Invalid, ServiceError
from services.runs.rules import MISSING_CAPABILITY, ROUNDS_MAX

ASK_S = 600.0
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_LOG_LEVEL_META = "io.modelcontextprotocol/logLevel"
log = structlog.get_logger(__name__)

T = TypeVar("T")
Run = Callable[[Dialogue], Awaitable[CallAnswer]]


class Questions(Exception):  # not an error: the answer of a round
    """What a client of 2026-07-28 is to answer before it calls again."""

    def __init__(self, result: dict[str, Any], questions: dict[str, Any]) -> None:
        super().__init__("the tool asks its client")
        state = str(result.get("requestState") or "")
        self.result: dict[str, Any] = {"resultType": "input_required", "inputRequests": questions}
        if state:
            self.result["requestState"] = state


async def converse(context: RequestContext, sessions: LegacySessions, requires: dict[str, Any], run: Run) -> CallAnswer:
    """The tool's final answer. Raises `Questions`, `MCPError` (-32021) for a capability that the client
    has not declared, and what `run` raises."""
    with requiring():
        capabilities = capabilities_of(context)
        require(capabilities, requires)
        given = context.params or {}
        responses, state = given.get("inputResponses") or {}, given.get("requestState") or ""
        for _ in range(ROUNDS_MAX):
            answer = await told(context, sessions, Dialogue(capabilities, responses, state), run)
            questions = questions_of(answer.result, capabilities)
            if questions is None:
                return answer
            if context.protocol_version >= MODERN:
                raise Questions(answer.result, questions)
            state = str(answer.result.get("requestState") or "")
            responses = {key: await _ask(context, question) for key, question in questions.items()}
    raise Exhausted(f"the tool asked {ROUNDS_MAX} times without coming to an end", code="too_many_rounds")


def capabilities_of(context: RequestContext) -> dict[str, Any]:
    declared = context.session.client_capabilities
    return declared.model_dump(by_alias=True, mode="json", exclude_none=True) if declared else {}


@contextmanager
def requiring() -> Iterator[None]:
    """A missing capability as the error that MCP has for it."""
    try:
        yield
    except Invalid as error:
        if error.code != MISSING_CAPABILITY:
            raise
        data = dict(error.facts)
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, error.message, data) from error


async def _ask(context: RequestContext, question: dict[str, Any]) -> dict[str, Any]:
    request, answer = question_and_answer(question["method"])
    related = ServerMessageMetadata(related_request_id=context.request_id)
    told = await context.session.send_request(request.model_validate(question), answer, ASK_S, related)
    return told.model_dump(by_alias=True, mode="json", exclude_none=True)


async def told(
    context: RequestContext, sessions: LegacySessions, dialogue: Dialogue, run: Callable[[Dialogue], Awaitable[T]]
) -> T:
    """What `run` answers, after all that the tool said before it."""
    failure: ServiceError | None = None
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(_tell(context, sessions, dialogue))
        try:
            answer = await run(dialogue)
        except ServiceError as error:  # raised below: the group would make an ExceptionGroup of it
            failure = error
        await dialogue.notices.join()
        telling.cancel()
    if failure is not None:
        raise failure
    return answer


async def _tell(context: RequestContext, sessions: LegacySessions, dialogue: Dialogue) -> None:
    while True:
        notice = await dialogue.notices.get()
        match notice:
            case Progress(progress, total, message):
                await context.session.report_progress(progress, total, message)
            case Log(level, data):
                if _LEVELS.index(level) >= _threshold(context, sessions):
                    params = types.LoggingMessageNotificationParams(level=level, data=data)
                    message_ = types.LoggingMessageNotification(params=params)
                    await context.session.send_notification(message_, context.request_id)
            case Detach():
                if context.close_sse_stream is not None:
                    await context.close_sse_stream()
        dialogue.notices.task_done()


def _threshold(context: RequestContext, sessions: LegacySessions) -> int:
    """The least level this client wants; 2026-07-28 says it with each request, or gets none."""
    if context.protocol_version >= MODERN:
        wanted = (context.meta or {}).get(_LOG_LEVEL_META)
        return _LEVELS.index(wanted) if wanted in _LEVELS else len(_LEVELS)
    return _LEVELS.index(sessions.log_level(context.session))
