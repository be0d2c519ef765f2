"""What an interactive tool and its caller tell each other while it runs."""

import asyncio
from typing import Any, Literal

import msgspec

from services import metrics

NOTICE = b'{"notice":'
# A tool that reports faster than its client takes it loses the surplus, never the call.
WAITING_MAX = 256

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


class Progress(msgspec.Struct, tag_field="kind", tag="progress"):
    progress: float
    total: float | None = None
    message: str | None = None


class Log(msgspec.Struct, tag_field="kind", tag="log"):
    level: LogLevel
    data: Any


class Detach(msgspec.Struct, tag_field="kind", tag="detach"):
    """The client may hang up and come back for the result."""


Notice = Progress | Log | Detach


class _Frame(msgspec.Struct):
    notice: Notice


_decode = msgspec.json.Decoder(_Frame).decode


class Dialogue:
    """One call's: `capabilities` are the client's; `responses` and `state` are what it answered to
    the questions of the call before. `notices` holds what the tool says, at most `WAITING_MAX`."""

    def __init__(
        self, capabilities: dict[str, Any] | None = None, responses: dict[str, Any] | None = None, state: str = ""
    ) -> None:
        self._known = {"capabilities": capabilities or {}, "responses": responses or {}, "state": state}
        self.notices: asyncio.Queue[Notice] = asyncio.Queue(WAITING_MAX)
        self._has_listener = True

    def known(self) -> dict[str, Any]:
        """What the tool is given."""
        return self._known

    def leave(self) -> None:
        """Nobody takes notices any more; what the tool says from now on is passed over."""
        self._has_listener = False

    def hear(self, payload: bytes) -> bool:
        """Takes a frame of the tool's; False for one that is no notice."""
        try:
            notice = _decode(payload).notice
        except msgspec.DecodeError:
            return False
        if not self._has_listener:
            return True
        try:
            self.notices.put_nowait(notice)
        except asyncio.QueueFull:
            metrics.tool_notices_dropped.inc()
        return True
