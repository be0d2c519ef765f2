"""One replica's view of the change log: a tail that feeds every follower in order.

The feed asks the database for what is new every `interval_s`, and at once after `kick`. A kick
carries nothing: it only makes the next tail come sooner, so a lost, late or forged one changes
no answer. Followers are called in the order they were added, once per row, after the commit;
views of state come before the notifier, so that whoever is told of a change can read it.

`horizon_s` is the moment until which everything applied here is known to be no more than
`DELTA_S` behind the database: the time the last complete tail was *sent*, plus `DELTA_S`.
Measured from the sending, because a commit may follow the database's snapshot at once.

Every tail begins with the newest row that was applied: if the log does not have it any more, or
has another one there, the feed reads the catalog anew and has every follower begin again from it
(`services/changes/fencing.py`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import structlog

from services import metrics
from services.changes.hints import Hints, NoHints
from services.changes.levels import BOUNDED, Level
from services.clock import Monotonic, monotonic_s
from services.failures import Conflict, Unavailable
from services.models import Change
from services.ports import CatalogSnapshot, ChangeReader, ChangeSink, Position

DELTA_S = 0.5
REFRESH_TIMEOUT_S = 0.05
SILENT_S = 0.15
STALE_MAX_S = 60.0
STRICT_TIMEOUT_S = 1.0
# A tail that takes longer is given up and sent anew: over a dead connection its answer never comes.
_TAIL_TIMEOUT_S = 1.0
_REACH_POLL_S = 0.02
_PAGE = 1000

log = structlog.get_logger(__name__)


class Bound(NamedTuple):
    """How old an answer given now may be: it holds every change committed `lag_s` ago or earlier.

    `stale` is True when the database did not answer, and only the last known state can be given.
    """

    asof: int
    lag_s: float
    stale: bool


class ChangeFeed:
    """Owns the tailing task; start it with `start`, end it with `close`.

    `begin_again` answers the catalog as it is now, for when the log does not hold what was applied;
    without one such a log counts as not answering.
    """

    def __init__(
        self,
        reader: ChangeReader,
        position: Position,
        *,
        interval_s: float,
        begin_again: Callable[[Position], Awaitable[CatalogSnapshot]] | None = None,
        clock: Monotonic = monotonic_s,
    ) -> None:
        self._reader = reader
        self._begin_again = begin_again
        self._interval_s = interval_s
        self._clock = clock
        self._hints: Hints = NoHints()
        self._sinks: list[ChangeSink] = []
        self._news = asyncio.Event()
        self._tailing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._round: asyncio.Task[None] | None = None
        # On its own, because it reads the whole catalog, for longer than any one caller waits.
        self._restarting: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.position = position
        self.horizon_s = clock()
        # Until then the database counts as not answering, and nobody waits to see: a request that asks
        # for a bound twice would wait twice, and all that come after it once more.
        self._silent_until_s = self.horizon_s

    @property
    def applied(self) -> int:
        """seq of the newest change every follower has seen."""
        return self.position.seq

    @property
    def is_fresh(self) -> bool:
        """True while cached state may be served under the bounded level."""
        return self._clock() < self.horizon_s

    def follow(self, sink: ChangeSink) -> None:
        """Adds a follower; only before `start`, so that none misses a row."""
        assert self._task is None, "followers are added before the feed starts"
        self._sinks.append(sink)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="change-feed")

    async def close(self) -> None:
        tasks = [*self._running, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def announce_with(self, hints: Hints) -> None:
        """Has commits of this replica told to the others."""
        self._hints = hints

    def committed(self, seq: int) -> None:
        """A write of this replica is committed: tails now, and lets the others do the same."""
        self.kick()
        self._hints.tell(seq)

    def hinted(self, seq: int) -> None:
        """Somebody says that `seq` is committed. True or not, all it does is make a tail come sooner."""
        if seq > self.applied:
            self.kick()

    def kick(self) -> None:
        """Makes the next tail come now."""
        self._news.set()

    async def tail(self) -> None:
        """Applies everything committed before this call. Raises `Unavailable`."""
        async with self._tailing:
            await self._catch_up()

    async def reach(self, seq: int, timeout_s: float) -> bool:
        """Waits until `seq` is applied; False when the time is up first."""
        if self.applied >= seq:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    with contextlib.suppress(Unavailable):  # the next try, or the time limit, decides
                        await self.tail()
                    if self.applied >= seq:
                        return True
                    await asyncio.sleep(_REACH_POLL_S)
        except TimeoutError:
            return False

    async def bound(self, level: Level = BOUNDED) -> Bound:
        """Makes this replica as fresh as `level` asks, or says that it may not be.

        bounded: past the horizon this waits for a tail, at most `REFRESH_TIMEOUT_S`, then answers
        stale, for `SILENT_S` without waiting again; raises `Unavailable` once the database has not
        answered for `STALE_MAX_S`. session and linearizable never answer stale: they raise
        `Unavailable` after `STRICT_TIMEOUT_S`. A session that names a place of another history
        raises `Conflict`.
        """
        if level.kind == "bounded":
            return await self._bounded()
        if level.kind == "session":
            await self._session(level)
        # A session's own seq says nothing about what others have committed since the last tail.
        if level.kind == "linearizable" or not self.is_fresh:
            await self._strict()
            self._require_epoch(level)
        return Bound(self.applied, round(max(0.0, self._clock() - self.horizon_s + DELTA_S), 3), stale=False)

    async def read_index(self) -> None:
        """Returns once everything committed before this call is applied. Raises `Unavailable`.

        All who wait share one query, but only if they came before it was sent (the ReadIndex of
        Raft, section 6.4 of Ongaro's thesis).
        """
        if self._round is None:
            self._round = self._owned(self._strict_round(), "read index")
        await asyncio.shield(self._round)

    async def _strict(self) -> None:
        try:
            async with asyncio.timeout(STRICT_TIMEOUT_S):
                await self.read_index()
        except TimeoutError as error:
            raise Unavailable("the database does not answer, and this read must be exact") from error

    async def _session(self, level: Level) -> None:
        if level.epoch not in ("", self.position.epoch):
            await self._strict()  # another replica may have fenced the log just now
        self._require_epoch(level)
        if not await self.reach(level.seq, STRICT_TIMEOUT_S):
            raise Unavailable(f"seq {level.seq} has not arrived here yet", code="not_yet", applied=self.applied)
        self._require_epoch(level)
        if not level.epoch or level.seq == 0 or level.id == self.position.id:
            return
        try:
            async with asyncio.timeout(STRICT_TIMEOUT_S):
                rows = await self._reader.tail(level.seq - 1, 1)
        except TimeoutError as error:
            raise Unavailable("the database does not answer, and this read must be exact") from error
        if rows and rows[0].seq == level.seq and rows[0].id != level.id:
            raise _unknown_history(level)

    def _require_epoch(self, level: Level) -> None:
        if level.epoch not in ("", self.position.epoch):
            raise _unknown_history(level)

    async def _strict_round(self) -> None:
        # Bounded, or a query that is never answered would hold the lock of all tails.
        async with asyncio.timeout(STRICT_TIMEOUT_S), self._tailing:
            self._round = None  # whoever comes from here on comes after the query
            await self._catch_up()

    def _owned(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._round is task:
            self._round = None
        if self._restarting is task:
            self._restarting = None
        if not task.cancelled():
            task.exception()  # every waiter may have gone

    async def _bounded(self) -> Bound:
        stale = not self.is_fresh
        if stale and not self._is_silent():
            try:
                async with asyncio.timeout(REFRESH_TIMEOUT_S), self._tailing:
                    # Of many that wait here, the first one's tail makes all of them fresh.
                    if not self.is_fresh:
                        await self._catch_up()
                stale = False
            except (TimeoutError, Unavailable):
                # Answered from what is known, and labelled so, unless another's tail has just ended.
                stale = not self.is_fresh
                self._silent_until_s = self._clock() + SILENT_S
        behind_s = self._clock() - self.horizon_s
        if stale and behind_s > STALE_MAX_S:
            raise Unavailable("the database has not answered for too long to answer from memory")
        return Bound(self.applied, round(max(0.0, behind_s + DELTA_S), 3), stale)

    def _is_silent(self) -> bool:
        """Whether the database has just not answered, and there is still something to answer from."""
        now_s = self._clock()
        return now_s < self._silent_until_s and now_s - self.horizon_s <= STALE_MAX_S

    async def _catch_up(self) -> None:
        """For whoever holds `_tailing`."""
        begun_anew = False
        while True:
            if self._restarting is not None:
                await asyncio.shield(self._restarting)
                begun_anew = True
            sent_s = self._clock()
            # One row more than is new: the one applied last, which must still be the same.
            known = min(1, self.applied)
            rows = await self._reader.tail(self.applied - known, _PAGE + known)
            if not self._continues(rows):
                if begun_anew:
                    raise Unavailable("the change log does not go on from the catalog")
                self._restarting = self._owned(self._restart(), "follow the log anew")
                continue
            changes = rows[known:]
            if changes:
                self._apply(changes)
            if len(changes) < _PAGE:
                self.horizon_s = max(self.horizon_s, sent_s + DELTA_S)
                return

    def _continues(self, rows: Sequence[Change]) -> bool:
        """Whether these rows, read from the newest applied one on, belong to the history that was applied."""
        if self.applied == 0:
            return not rows or (rows[0].seq == 1 and rows[0].id.startswith(f"{self.position.epoch}-"))
        return bool(rows) and rows[0].id == self.position.id

    async def _restart(self) -> None:
        if self._begin_again is None:
            raise Unavailable("the change log does not hold what was applied here")
        sent_s = self._clock()
        snapshot = await self._begin_again(self.position)
        log.warning("following the change log anew", before=self.position.id, now=snapshot.position.id)
        metrics.log_restarts.inc()
        for sink in self._sinks:
            try:
                sink.restart(snapshot)
            except Exception:
                metrics.sink_failures.labels(type(sink).__name__).inc()
                log.exception("a follower of the change log failed to begin again", sink=type(sink).__name__)
        self.position = snapshot.position
        self.horizon_s = max(self.horizon_s, sent_s + DELTA_S)
        metrics.log_seq.set(self.applied)

    def _apply(self, changes: Sequence[Change]) -> None:
        for sink in self._sinks:
            try:
                sink.apply(changes)
            except Exception:
                # One broken follower must not keep the others from the truth.
                metrics.sink_failures.labels(type(sink).__name__).inc()
                log.exception("a follower of the change log failed", sink=type(sink).__name__, seq=changes[0].seq)
        self.position = Position(self.position.epoch, changes[-1].seq, changes[-1].id)
        metrics.changes_applied.inc(len(changes))
        metrics.log_seq.set(self.applied)

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                async with asyncio.timeout(_TAIL_TIMEOUT_S):
                    await self.tail()
                if failing:
                    log.info("the change log answers again", applied=self.applied)
                failing = False
            except Exception:
                metrics.tail_failures.inc()
                if not failing:
                    log.exception("the change log cannot be read; trying again", applied=self.applied)
                failing = True
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._news.wait()
            except TimeoutError:
                continue
            finally:
                self._news.clear()


def _unknown_history(level: Level) -> Conflict:
    return Conflict(
        f"{level.id} is a place of another history of this database: read anew without it", code="unknown_epoch"
    )
