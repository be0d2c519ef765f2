"""Which cached records the change log still allows.

A record is valid when none of its deps changed after its `asof`. `floor` is from where on this
replica knows the log: what happened before it is not known here, so a record from before the
floor is refused as well, unless it depends on nothing (the content of a version never changes).
A change of `*` refuses every record from before it.
"""

from collections.abc import Sequence

import structlog

from services.cache.codec import Record
from services.models import Change
from services.ports import CatalogSnapshot, ChangeReader

EVERYTHING = "*"
LOOK_BACK_MAX = 10_000
_PAGE = 1000
_UNSETTLED = -2  # cells begin at -1

log = structlog.get_logger(__name__)


class Horizon:
    """The newest change of every dep since the floor; grows with the number of things that changed.

    `revision` moves with every change, so that whoever checked a record need not do so again
    while it stands still. `settled` is the same number while no load is under way, else one that no
    record was ever checked at: a read inside a load must tell it what it depends on. Two reasons to
    look closer, in one comparison for whoever has a hundred nanoseconds.
    """

    def __init__(self, epoch: str, floor: int) -> None:
        self._epoch = epoch
        self._floor = floor
        self._last: dict[str, int] = {}
        self._loads = 0
        self.revision = self.settled = 0

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._note(change)
        self._move()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._epoch, self._floor = snapshot.position.epoch, snapshot.position.seq
        self._last.clear()
        self._move()  # whoever checked a record against the old history must look again

    def load_begins(self) -> None:
        self._loads += 1
        self.settled = _UNSETTLED

    def load_ended(self) -> None:
        self._loads -= 1
        self._settle()

    def allows(self, record: Record) -> bool:
        if record.epoch != self._epoch:
            return False
        if record.deps and record.asof < self._floor:
            return False
        return not self.changed(record.deps, record.asof)

    def changed(self, deps: Sequence[str] | set[str], asof: int) -> bool:
        """Whether one of `deps` is known to have changed after `asof`."""
        last = self._last
        if last.get(EVERYTHING, 0) > asof:
            return True
        return any(last.get(dep, 0) > asof for dep in deps)

    async def look_back(self, history: ChangeReader, asof: int) -> None:
        """Lowers the floor to `asof`, by at most `LOOK_BACK_MAX` rows, so that records of before a
        restart can be told good from old. Raises `Unavailable`; the floor then stays."""
        floor = reached = max(asof, self._floor - LOOK_BACK_MAX, 0)
        while reached < self._floor:
            rows = [row for row in await history.tail(reached, _PAGE) if row.seq <= self._floor]
            if not rows:
                break  # the head was restored to an earlier one; what is missing cannot be known
            if rows[0].seq != reached + 1:
                floor = rows[0].seq - 1  # the log was trimmed there
            for row in rows:
                self._note(row)
            reached = rows[-1].seq
        if reached == self._floor:
            log.info("the change log was read backwards", rows=self._floor - floor)
            self._floor = floor

    def _move(self) -> None:
        self.revision += 1
        self._settle()

    def _settle(self) -> None:
        if not self._loads:
            self.settled = self.revision

    def _note(self, change: Change) -> None:
        last = self._last
        # By the larger one: rows of a look back come after those of the tail.
        for dep in (change.dep, f"topic:{change.topic}"):
            last[dep] = max(last.get(dep, 0), change.seq)
