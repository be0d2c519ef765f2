"""WebSocket close codes, whose range says whether the client should come back.

3000-3499 and 4000-4499: reconnect and resume with the last id. 3500-3999 and 4500-4999: do
not, the same thing would happen again. The ranges are centrifuge's (`disconnect.go`). The
dashboard's client reads the same table.
"""

from typing import Final, NamedTuple


class CloseCode(NamedTuple):
    code: int
    reason: str


SHUTDOWN: Final = CloseCode(3001, "shutdown")
SLOW: Final = CloseCode(3008, "slow")
UNAVAILABLE: Final = CloseCode(3011, "unavailable")
SILENT: Final = CloseCode(3012, "no sign of life")
FULL: Final = CloseCode(3013, "too many subscribers")
UNAUTHENTICATED: Final = CloseCode(3500, "unauthenticated")
FORBIDDEN: Final = CloseCode(3503, "forbidden")
TOO_LARGE: Final = CloseCode(3509, "message too large")

CLOSE_CODES: Final = (SHUTDOWN, SLOW, UNAVAILABLE, SILENT, FULL, UNAUTHENTICATED, FORBIDDEN, TOO_LARGE)

# RFC 6455 section 7.4.1: the ones that end a connection, not a conversation. 1006 is what a client sees
# of a replica that was killed; 1012 is what uvicorn sends when it stops before we could.
_STANDARD_RECONNECT = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014})


def reconnects(code: int) -> bool:
    """True when a client that was closed with `code` should connect again and resume."""
    if code < 3000:
        return code in _STANDARD_RECONNECT
    return 3000 <= code < 3500 or 4000 <= code < 4500
