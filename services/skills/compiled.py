"""Lists of tools in the form an edge sends them, made once for all who see the same."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from services.clock import Monotonic, monotonic_s
from services.models import Change
from services.ports import CatalogSnapshot

TTL_S = 300.0
LISTS_MAX = 64

T = TypeVar("T")


class Compiled(NamedTuple):
    made_s: float
    tools: Sequence[Any]


class CompiledLists:
    """A `ChangeSink`: a list is good until a skill or a tool changes, and for at most `TTL_S`."""

    def __init__(self, clock: Monotonic = monotonic_s) -> None:
        self._clock = clock
        self._lists: dict[Hashable, Compiled] = {}
        self.hits = 0
        self.misses = 0

    @property
    def newest(self) -> Compiled | None:
        """The list made last that is still good."""
        now_s = self._clock()
        good = [each for each in self._lists.values() if now_s < each.made_s + TTL_S]
        return max(good, key=lambda each: each.made_s, default=None)

    def age_s(self, compiled: Compiled) -> float:
        return self._clock() - compiled.made_s

    def get(self, key: Hashable, make: Callable[[], list[T]]) -> Sequence[T]:
        """The list of `key`, which names its form and who sees it; not to be changed by the caller."""
        now_s = self._clock()
        found = self._lists.get(key)
        if found is not None and now_s < found.made_s + TTL_S:
            self.hits += 1
            return found.tools
        self.misses += 1
        made = make()
        self._lists.pop(key, None)
        if len(self._lists) >= LISTS_MAX:
            del self._lists[next(iter(self._lists))]  # the one made first
        self._lists[key] = Compiled(now_s, made)
        return made

    def hit(self, key: Hashable) -> bool:
        """Counts an answer given from bytes that were made of this list; False when the list is not good any more."""
        found = self._lists.get(key)
        if found is None or self._clock() >= found.made_s + TTL_S:
            return False
        self.hits += 1
        return True

    def clear(self) -> None:
        self._lists.clear()

    def apply(self, changes: Sequence[Change]) -> None:
        if any(change.skill is not None or change.topic == "tools" for change in changes):
            self._lists.clear()

    def restart(self, snapshot: CatalogSnapshot) -> None:  # noqa: ARG002  # the port's shape
        self._lists.clear()
