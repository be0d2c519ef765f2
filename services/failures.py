"""Every error a caller of the business layer may meet.

    ServiceError
      +-- Invalid         the input breaks a rule; nothing was changed
      +-- TooLarge        the input is over a stated bound
      +-- NotFound        no such thing, or not visible to this caller
      +-- Conflict        the thing has changed since the caller looked
      +-- Forbidden       the caller, or the operator's policy, does not allow it
      +-- Timeout         the deadline passed; the work was stopped
      +-- Exhausted       a bounded queue or rate is full; try again later
      +-- Unavailable     a part this needs is not there now
      |     +-- Full      there is no room left to store it
      +-- ToolFailed      the tool ran and reported an error of its own

`code` is a stable string for programs; the message is for people. How each one
looks on the wire is decided in one place, `gateway/failures.py`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of all expected failures; `facts` are further members for programs."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, code: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, Any] = facts
        if code is not None:
            self.code = code  # type: ignore[misc]  # narrower than the class's, on purpose


class Invalid(ServiceError):
    code = "invalid"


class TooLarge(ServiceError):
    code = "too_large"


class NotFound(ServiceError):
    code = "not_found"


class Conflict(ServiceError):
    code = "conflict"


class Forbidden(ServiceError):
    code = "forbidden"


class Timeout(ServiceError):
    code = "timeout"


class Exhausted(ServiceError):
    """`retry_after_s` says when a new try makes sense."""

    code = "exhausted"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class Unavailable(ServiceError):
    code = "unavailable"


class Full(Unavailable):
    """Nothing was stored; it goes on by itself once there is room."""

    code = "disk_full"


class ToolFailed(ServiceError):
    code = "tool_failed"
