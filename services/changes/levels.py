"""How fresh an answer must be: the caller's choice, request by request.

`bounded` holds everything committed half a second ago or earlier; `session=<seq>` also the
caller's own write of that seq, on whatever replica; `linearizable` everything committed before
the request arrived.
"""

import re
from typing import Literal, NamedTuple

from services.failures import Invalid

_SESSION = re.compile(r"session=(\d{1,15})")


class Level(NamedTuple):
    """`seq` is 0 but for a session."""

    kind: Literal["bounded", "session", "linearizable"]
    seq: int = 0


BOUNDED = Level("bounded")
LINEARIZABLE = Level("linearizable")


def parse_level(text: str) -> Level:
    """Raises `Invalid`."""
    if text in ("", "bounded"):
        return BOUNDED
    if text == "linearizable":
        return LINEARIZABLE
    if found := _SESSION.fullmatch(text):
        return Level("session", int(found[1]))
    raise Invalid("the consistency is one of: bounded, session=<seq>, linearizable", code="bad_consistency")
