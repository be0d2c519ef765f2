"""What the error firewall talks about, as immutable values."""

from typing import Any, Literal, NamedTuple

import msgspec

ErrorClass = Literal["DATABASE", "NETWORK", "VALIDATION", "PERMISSION", "UNKNOWN"]
Level = Literal["none", "warn", "block"]


class Incident(msgspec.Struct, frozen=True):
    """An error that was seen, `count` times, in calls of one tool.

    `id` is made of class, tool and pattern. `message` and `arguments` are those of the first
    occurrence, redacted and cut, together at most 1 KB. `guard` identifies that call's arguments;
    a `level` other than none was set by a person and holds for calls with the same guard.
    """

    id: str
    error_class: ErrorClass = msgspec.field(name="class")
    tool: str
    skill: str
    pattern: str
    code: str
    level: Level
    count: int
    first_at: str
    last_at: str
    message: str
    arguments: str
    guard: str

    def shown(self) -> dict[str, Any]:
        """For clients: without `guard`, from which arguments that were redacted could be guessed."""
        members: dict[str, Any] = msgspec.to_builtins(self)
        del members["guard"]
        return members


class Solution(msgspec.Struct, frozen=True):
    """What somebody says helps against an incident, and how often it was tried and worked."""

    id: str
    incident: str
    text: str
    author: str
    at: str
    tried: int = 0
    worked: int = 0


class KnownSolution(msgspec.Struct, frozen=True):
    """A solution as a failing caller is told: of this very incident, or of a similar one."""

    incident: str
    solution: str
    text: str
    match: Literal["exact", "similar"]
    score: float
    tried: int
    worked: int


class IncidentQuery(NamedTuple):
    """Newest occurrence first. `after` is (`last_at`, `id`) of the last one of the page before."""

    limit: int
    error_class: ErrorClass | None = None
    after: tuple[str, str] | None = None


class KnownIncidents(NamedTuple):
    """Those that matter to calls to come: with a level, and with solutions."""

    marked: list[Incident]
    solved: list[Incident]
