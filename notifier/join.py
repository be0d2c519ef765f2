"""What a subscriber asked for, and what became of a wish to go on from a position."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Interest:
    """One topic of one subscriber; the numbers are seqs for a log topic, versions for a state topic.

    Nothing at or below `floor` is delivered. What is above `live` was announced while subscribed and counted
    as owed then; what is between is a replay or a snapshot, counted when it is read.
    """

    floor: int
    live: int
    owed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """Topics that were registered but not acknowledged; the log stood at `head` when they were."""

    topics: frozenset[str]
    since: str | None
    head: int
    position: str


class Recovery(NamedTuple):
    """The answer to a subscribe.

    `recovered` False means that the stream starts at `position` and the client needs a snapshot. True means
    that it goes on from the client's own position: `replayed` events bring it to `position`.
    """

    position: str
    recovered: bool
    replayed: int
