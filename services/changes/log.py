"""One replica's view of the change log: a tail that feeds every follower in order.

The feed asks the database for what is new every `interval_s`, and at once after `kick`. A kick
carries nothing: it only makes the next tail come sooner, so a lost, late or forged one changes
no answer. Followers are called in the order they were added, once per row, after the commit;
views of state come before the notifier, so that whoever is told of a change can read it.

`horizon_s` is the moment until which everything applied here is known to be no more than
`DELTA_S` behind the database: the time the last complete tail was *sent*, plus `DELTA_S`.
Measured from the sending, because a commit may follow the database's snapshot at once.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from services import metrics
from services.changes.levels import BOUNDED, Level
from services.clock import Monotonic, monotonic_s
from services.failures import Unavailable
from services.models import Change
from services.ports import ChangeReader, ChangeSink, Position

DELTA_S = 0.5
REFRESH_TIMEOUT_S = 0.05
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
    """Owns the tailing task; start it with `start`, end it with `close`."""

    def __init__(
        self, reader: ChangeReader, position: Position, *, interval_s: float, clock: Monotonic = monotonic_s
    ) -> None:
        self._reader = reader
        self._interval_s = interval_s
        self._clock = clock
        self._sinks: list[ChangeSink] = []
        self._news = asyncio.Event()
        self._tailing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._round: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self.position = position
        self.horizon_s = clock()

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
        tasks = [*self._rounds, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

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
        stale; raises `Unavailable` once the database has not answered for `STALE_MAX_S`. session
        and linearizable never answer stale: they raise `Unavailable` after `STRICT_TIMEOUT_S`.
        """
        if level.kind == "bounded":
            return await self._bounded()
        if level.kind == "session" and not await self.reach(level.seq, STRICT_TIMEOUT_S):
            raise Unavailable(f"seq {level.seq} has not arrived here yet", code="not_yet", applied=self.applied)
        # A session's own seq says nothing about what others have committed since the last tail.
        if level.kind == "linearizable" or not self.is_fresh:
            try:
                async with asyncio.timeout(STRICT_TIMEOUT_S):
                    await self.read_index()
            except TimeoutError as error:
                raise Unavailable("the database does not answer, and this read must be exact") from error
        return Bound(self.applied, round(max(0.0, self._clock() - self.horizon_s + DELTA_S), 3), stale=False)

    async def read_index(self) -> None:
        """Returns once everything committed before this call is applied. Raises `Unavailable`.

        All who wait share one query, but only if they came before it was sent (the ReadIndex of
        Raft, section 6.4 of Ongaro's thesis).
        """
        if self._round is None:
            self._round = asyncio.create_task(self._strict_round(), name="read index")
            self._rounds.add(self._round)
            self._round.add_done_callback(self._end_round)
        await asyncio.shield(self._round)

    async def _strict_round(self) -> None:
        # Bounded, or a query that is never answered would hold the lock of all tails.
        async with asyncio.timeout(STRICT_TIMEOUT_S), self._tailing:
            self._round = None  # whoever comes from here on comes after the query
            await self._catch_up()

    def _end_round(self, task: asyncio.Task[None]) -> None:
        self._rounds.discard(task)
        if self._round is task:
            self._round = None
        if not task.cancelled():
            task.exception()  # every waiter may have gone

    async def _bounded(self) -> Bound:
        stale = not self.is_fresh
        if stale:
            try:
                async with asyncio.timeout(REFRESH_TIMEOUT_S), self._tailing:
                    # Of many that wait here, the first one's tail makes all of them fresh.
                    if not self.is_fresh:
                        await self._catch_up()
                stale = False
            except (TimeoutError, Unavailable):
                # Answered from what is known, and labelled so, unless another's tail has just ended.
                stale = not self.is_fresh
        behind_s = self._clock() - self.horizon_s
        if stale and behind_s > STALE_MAX_S:
            raise Unavailable("the database has not answered for too long to answer from memory")
        return Bound(self.applied, round(max(0.0, behind_s + DELTA_S), 3), stale)

    async def _catch_up(self) -> None:
        """For whoever holds `_tailing`."""
        while True:
            sent_s = self._clock()
            changes = await self._reader.tail(self.applied, _PAGE)
            if changes:
                self._apply(changes)
            if len(changes) < _PAGE:
                self.horizon_s = max(self.horizon_s, sent_s + DELTA_S)
                return

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
