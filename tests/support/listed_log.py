"""A change log in a list, and a clock that stands still: what a feed needs to be tested without a database."""

import asyncio
from collections.abc import Callable, Sequence

from services.models import Change
from services.ports import CatalogSnapshot, Position

EPOCH = "e0000000"


class ListedLog:
    """A `ChangeReader`; `commit` appends rows. `on_tail` is called when a tail has been read, before it is answered."""

    def __init__(self) -> None:
        self.rows: list[Change] = []
        self.on_tail: Callable[[], None] = lambda: None

    def commit(self, *deps: str) -> int:
        for dep in deps:
            seq = len(self.rows) + 1
            self.rows.append(
                Change(
                    id=f"{EPOCH}-{seq}-00000000",
                    prev="",
                    seq=seq,
                    topic="skills",
                    kind="skill.published",
                    dep=dep,
                    owner="main",
                    visibility="public",
                    at="2026-11-21T00:00:00.000Z",
                    data=b"{}",
                )
            )
        return len(self.rows)

    async def head(self) -> Position:
        return Position(EPOCH, len(self.rows), self.rows[-1].id if self.rows else f"{EPOCH}-0-00000000")

    async def tail(self, after: int, limit: int) -> list[Change]:
        found = self.rows[after : after + limit]
        await asyncio.sleep(0)  # as any real read, it lets others run before it answers
        self.on_tail()
        return found


class RecordingSink:
    """Keeps the seqs it was given, and writes `name` into a list shared by several."""

    def __init__(self, name: str = "", calls: list[str] | None = None) -> None:
        self.seqs: list[int] = []
        self.restarts: list[Position] = []
        self._name = name
        self._calls = calls if calls is not None else []

    def apply(self, changes: Sequence[Change]) -> None:
        self.seqs += [change.seq for change in changes]
        self._calls.append(self._name)

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self.seqs.clear()
        self.restarts.append(snapshot.position)
        self._calls.append(f"{self._name} anew")


class StoppedClock:
    """Stands at `now_s` until somebody moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s
