"""What a load depends on, noted where it is read: `depends_on("skill:main/a")`.

A dep is `skill:<id>` or `tools:<id>` (one skill), `topic:skills` or `topic:tools` (any change of
that topic: for lists and for what was not found). `*` in the change log clears everything; every
record depends on it without saying so. A cached read inside a load hands its deps on.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Capture:
    """The deps of one load under way. `asof` is the seq it claims to be as new as.

    `is_stale` is True once a stale answer went into it, so that its result must not be kept.
    """

    __slots__ = ("asof", "deps", "is_stale")

    def __init__(self, asof: int, deps: Iterable[str] = ()) -> None:
        self.asof = asof
        self.deps = set(deps)
        self.is_stale = False


current: ContextVar[Capture | None] = ContextVar("load", default=None)


def depends_on(*deps: str) -> None:
    """Adds `deps` to the load under way; outside of one it does nothing."""
    capture = current.get()
    if capture is not None:
        capture.deps.update(deps)


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    token = current.set(capture)
    try:
        yield
    finally:
        current.reset(token)
