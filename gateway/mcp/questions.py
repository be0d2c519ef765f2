"""What tools say to their clients themselves: questions (MRTR, SEP-2322), and content of their own making.

The SDK's models judge it. They are imported by the first tool that says any such thing.
"""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from services.failures import Invalid, ToolFailed
from services.runs.rules import MISSING_CAPABILITY

if TYPE_CHECKING:
    from pydantic import BaseModel

# What may be asked, and the capability it needs.
_CAPABILITIES = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def questions_of(result: Any, capabilities: dict[str, Any]) -> dict[str, Any] | None:
    """What a tool asks with this result, None for a final one. Raises `ToolFailed`, and `Invalid` for
    what this client cannot be asked."""
    if not isinstance(result, dict) or "inputRequests" not in result:
        return None
    questions = result["inputRequests"]
    if not isinstance(questions, dict) or not questions:
        raise ToolFailed("the tool asks, but says no question", code="bad_output")
    for question in questions.values():
        method = question.get("method") if isinstance(question, dict) else None
        if not isinstance(method, str) or method not in _CAPABILITIES:
            raise ToolFailed(f"a tool asks with {', '.join(_CAPABILITIES)}", code="bad_output")
        require(capabilities, {_CAPABILITIES[method]: {}})
        problems = _problems(question_and_answer(method)[0], question)
        if problems:
            raise ToolFailed(f"the tool's question is not valid: {problems} errors", code="bad_output")
    return questions


def require(capabilities: dict[str, Any], requires: dict[str, Any]) -> None:
    """Raises `Invalid`, with what is missing."""
    missing = {name: wanted for name, wanted in requires.items() if name not in capabilities}
    if missing:
        message = f"this needs a client with {', '.join(sorted(missing))}"
        raise Invalid(message, code=MISSING_CAPABILITY, requiredCapabilities=missing)


def response_problem(question: dict[str, Any], response: Any) -> str | None:
    """None where the response answers the question as MCP defines it."""
    method = question["method"]
    problems = _problems(question_and_answer(method)[1], response)
    return f"not a response to {method}: {problems} errors" if problems else None


def question_and_answer(method: str) -> "tuple[type[Any], type[BaseModel]]":
    """The SDK's models of what is asked with `method`, and of what a client answers."""
    import mcp_types as types  # noqa: PLC0415  # most tools never ask

    models: dict[str, tuple[type[Any], type[BaseModel]]] = {
        "elicitation/create": (types.ElicitRequest, types.ElicitResult),
        "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
        "roots/list": (types.ListRootsRequest, types.ListRootsResult),
    }
    return models[method]


def is_call_result(result: dict[str, Any]) -> bool:
    import mcp_types as types  # noqa: PLC0415  # the same

    return not _problems(types.CallToolResult, result)


def _problems(model: "type[BaseModel]", given: Any) -> int:
    try:
        model.model_validate(given)
    except ValidationError as error:
        return error.error_count()
    return 0
