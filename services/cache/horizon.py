"""Which cached records the change log still allows.

A record is valid when none of its deps changed after its `asof`. `floor` is where this replica
began to follow the log: what happened before it is not known here, so a record from before the
floor is refused as well, unless it depends on nothing (the content of a version never changes).
"""

from collections.abc import Sequence

from services.cache.codec import Record
from services.models import Change
from services.ports import CatalogSnapshot


class Horizon:
    """The newest change of every dep since the floor; grows with the number of things that changed."""

    def __init__(self, epoch: str, floor: int) -> None:
        self._epoch = epoch
        self._floor = floor
        self._last: dict[str, int] = {}

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._last[change.dep] = change.seq
            self._last[f"topic:{change.topic}"] = change.seq

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._epoch, self._floor = snapshot.position.epoch, snapshot.position.seq
        self._last.clear()

    def allows(self, record: Record) -> bool:
        if record.epoch != self._epoch:
            return False
        if record.deps and record.asof < self._floor:
            return False
        return all(self._last.get(dep, 0) <= record.asof for dep in record.deps)
