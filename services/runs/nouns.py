"""What the parts say about runs, as immutable values."""

from typing import Any, Literal, NamedTuple

import msgspec

RunStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
OVER: frozenset[RunStatus] = frozenset(("completed", "failed", "cancelled"))


class RunError(msgspec.Struct, frozen=True):
    """An error as `services.failures` has it, to be told later."""

    code: str
    message: str
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A tool's call that outlives the request it came with; whose it is, `principal` says.

    `replica` is where it works, or worked last. A call has rounds: one ends with questions
    (`input_required`), the next one begins when all are answered. `questions` are those of this
    round and `responses` what of them has been answered, under keys that no other round has;
    `state` is what the tool wants to be told again. `error` of a `completed` run is the tool's own;
    of a `failed` one it is ours. `arguments` are gone when it is over. `seq` is the change that
    made this state. Stamps are RFC 3339.
    """

    id: str
    principal: str
    status: RunStatus
    tool: str
    is_interactive: bool = False
    skill: str
    version: int
    digest: str
    replica: str
    created_at: str
    changed_at: str
    expires_at: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    seq: int = 0
    round: int = 1
    questions: dict[str, Any] = msgspec.field(default_factory=dict)
    responses: dict[str, Any] = msgspec.field(default_factory=dict)
    state: str = ""
    result: Any = None
    error: RunError | None = None

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    @property
    def open_questions(self) -> dict[str, Any]:
        return {key: question for key, question in self.questions.items() if key not in self.responses}


class RunQuery(NamedTuple):
    """A principal's runs, newest first; `before` is the id to go on after."""

    principal: str
    limit: int
    before: str | None = None
