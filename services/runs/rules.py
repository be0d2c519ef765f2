"""What may become of a run; each answers None where nothing does."""

from collections.abc import Mapping
from typing import Any

import msgspec

from services.failures import ServiceError
from services.runs.nouns import Run, RunError

ROUNDS_MAX = 16
MISSING_CAPABILITY = "missing_capability"
INTERRUPTED = RunError("interrupted", "the replica that worked on this has ended; what the tool did is not known")
TOO_MANY_ROUNDS = RunError("too_many_rounds", f"the tool asked {ROUNDS_MAX} times without coming to an end")


def completed(run: Run, result: Any) -> Run | None:
    return None if run.is_over else _over(run, status="completed", result=result)


def tool_failed(run: Run, error: RunError) -> Run | None:
    """The tool, or the call itself, went wrong: an answer like another."""
    return None if run.is_over else _over(run, status="completed", error=error)


def failed(run: Run, error: RunError) -> Run | None:
    """There is no answer, because of us."""
    return None if run.is_over else _over(run, status="failed", error=error)


def cancelled(run: Run) -> Run | None:
    return None if run.is_over else _over(run, status="cancelled")


def interrupted(run: Run, replica: str) -> Run | None:
    """Of a replica that works on it no more; another may have taken it up since that was seen."""
    return failed(run, INTERRUPTED) if run.status == "working" and run.replica == replica else None


def asked(run: Run, questions: Mapping[str, Any], state: str) -> Run | None:
    """The keys carry the round: a tool may use one twice, its client must not see it twice."""
    if run.is_over:
        return None
    if run.round >= ROUNDS_MAX:
        return failed(run, TOO_MANY_ROUNDS)
    keyed = {f"{run.round}.{key}": question for key, question in questions.items()}
    return msgspec.structs.replace(run, status="input_required", questions=keyed, responses={}, state=state)


def answered(run: Run, responses: Mapping[str, Any], replica: str) -> Run | None:
    """Takes the responses that are asked for; with the last of them the next round begins on `replica`."""
    given = {key: response for key, response in responses.items() if key in run.open_questions}
    if run.status != "input_required" or not given:
        return None
    run = msgspec.structs.replace(run, responses={**run.responses, **given})
    if run.open_questions:
        return run
    return msgspec.structs.replace(run, status="working", replica=replica, round=run.round + 1)


def given_to_tool(run: Run) -> dict[str, Any]:
    """The responses to the last questions, under the tool's own keys."""
    return {key.partition(".")[2]: response for key, response in run.responses.items()}


def error_of(error: ServiceError) -> RunError:
    return RunError(error.code, error.message, msgspec.to_builtins(dict(error.facts)))


def _over(run: Run, **members: Any) -> Run:
    return msgspec.structs.replace(run, arguments={}, questions={}, responses={}, state="", **members)
