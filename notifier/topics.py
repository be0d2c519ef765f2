"""The names a client may subscribe to.

A log topic carries rows of the change log: nothing is lost, everything has an id. A state
topic carries the latest value of each key: a snapshot first, then conflated updates.
"""

import re
from collections.abc import Iterable

LOG_TOPICS = frozenset({"skills", "tools", "solutions"})
STATE_TOPICS = frozenset({"stats", "health", "cache", "incidents"})
RUN_TOPIC = "runs/{id}"
_RUN = re.compile(r"runs/[A-Za-z0-9_-]{1,64}")

# A subscriber's whole set: every topic there is, and some that are not.
TOPICS_MAX = 128


class UnknownTopic(ValueError):
    """The message names the topics there are; show it to the caller."""


def is_state_topic(topic: str) -> bool:
    """True also for a `RUN_TOPIC`, which there is one of for every run."""
    return topic in STATE_TOPICS or _RUN.fullmatch(topic) is not None


def checked_topics(topics: Iterable[str]) -> frozenset[str]:
    """The topics as a set. Raises `UnknownTopic` for a name that does not exist, for none and for too many."""
    wanted = frozenset(topics)
    if not 1 <= len(wanted) <= TOPICS_MAX:
        raise UnknownTopic(f"name 1 to {TOPICS_MAX} topics of: {_allowed()}")
    for topic in wanted:
        if topic not in LOG_TOPICS and not is_state_topic(topic):
            raise UnknownTopic(f"no topic {topic[:80]!r}; there are: {_allowed()}")
    return wanted


def _allowed() -> str:
    return ", ".join([*sorted(LOG_TOPICS), *sorted(STATE_TOPICS), RUN_TOPIC])
