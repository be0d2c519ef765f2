"""The latest value of every (topic, key), in the order of their last change."""

from collections import OrderedDict
from collections.abc import Iterator

from notifier.events import Coverage, StateEvent


class LatestStates:
    """At most `keys_max` states; a new key beyond that pushes out the one unchanged for longest.

    Versions grow by one with every change, so a subscriber needs one number to know what it
    has not seen, and slow subscribers conflate by themselves.
    """

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._latest: OrderedDict[tuple[str, str], StateEvent] = OrderedDict()
        self.version = 0
        self.coverage: Coverage = "local"

    def put(self, key: str, event: StateEvent) -> tuple[StateEvent | None, StateEvent | None]:
        """Stores `event`, which carries `version + 1`; returns what it replaced and what it pushed out."""
        assert event.version == self.version + 1
        self.version = event.version
        replaced = self._latest.pop((event.topic, key), None)
        self._latest[event.topic, key] = event
        evicted = None
        if len(self._latest) > self._keys_max:
            _, evicted = self._latest.popitem(last=False)
        return replaced, evicted

    def find(self, topic: str, key: str) -> StateEvent | None:
        return self._latest.get((topic, key))

    def __iter__(self) -> Iterator[StateEvent]:
        return iter(tuple(self._latest.values()))

    def changed_after(self, version: int) -> list[StateEvent]:
        """States that changed after `version`, longest unchanged first; costs what changed, not what is kept."""
        newest_first: list[StateEvent] = []
        for event in reversed(self._latest.values()):
            if event.version <= version:
                break
            newest_first.append(event)
        return newest_first[::-1]
