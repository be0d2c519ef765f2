"""Who calls a use case, as the business layer needs to know it."""

from collections.abc import Callable
from typing import NamedTuple

from services.models import Skill

Sees = Callable[[Skill], bool]


class Caller(NamedTuple):
    """`session` is the client's own, empty where the transport has none; `sees` decides visibility."""

    id: str
    transport: str
    session: str
    sees: Sees
