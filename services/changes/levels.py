"""How fresh an answer must be: the caller's choice, request by request.

`bounded` holds everything committed half a second ago or earlier; `session=<seq>` also the
caller's own write of that seq, on whatever replica; `linearizable` everything committed before
the request arrived. A session may name its write by an event's id, which also says of which
history it is: after a restore of the database the same seq is another write.
"""

import re
from typing import Literal, NamedTuple

from services.failures import Invalid
from services.ports import Position

_SEQ = re.compile(r"\d{1,15}")


class Level(NamedTuple):
    """`seq` is 0 but for a session; `epoch` and `id` are empty but for one that gave an id."""

    kind: Literal["bounded", "session", "linearizable"]
    seq: int = 0
    epoch: str = ""
    id: str = ""


BOUNDED = Level("bounded")
LINEARIZABLE = Level("linearizable")


def parse_level(text: str) -> Level:
    """Raises `Invalid`."""
    if text in ("", "bounded"):
        return BOUNDED
    if text == "linearizable":
        return LINEARIZABLE
    kind, _, place = text.partition("=")
    if kind == "session" and _SEQ.fullmatch(place):
        return Level("session", int(place))
    if kind == "session" and (found := Position.parse(place)):
        return Level("session", found.seq, found.epoch, found.id)
    raise Invalid(
        "the consistency is one of: bounded, session=<seq>, session=<event id>, linearizable", code="bad_consistency"
    )
