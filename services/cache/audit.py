"""A check of the cache while it serves: of what it hands out, one in so many is read from the truth again.

Everything the cache promises is proven beforehand, by simulation and on real replicas; the audit
asks whether it holds here and now, for these loaders. It would also see what no proof of the tiers
can: a loader that forgets a dep, whose answers nothing would ever refuse.

A record that differs from the truth is not stale yet: the bound allows answers that miss what was
committed within `DELTA_S`. So the truth is read, at a moment that is known, and `DELTA_S` after that
moment the cache is asked again. If it still hands out the same record, that record lacks something
that was committed longer ago than the bound allows, whoever's mistake it is. This trusts neither
the log nor the horizon: it compares what was read with what is served.

| outcome | meaning |
|---|---|
| ok | the truth is what was served, or the cache itself had let go of the record in time |
| stale | the record was still served past the bound: logged as an error |
| unknown | the truth could not be read |
| skipped | more were due than `PER_ROUND_MAX` |
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import structlog

from services import metrics
from services.cache.codec import Record
from services.cache.memory import Cell, MemoryTier
from services.cache.space import Loaded
from services.changes.log import DELTA_S, ChangeFeed
from services.failures import NotFound, ServiceError

if TYPE_CHECKING:
    from services.cache.tiered import TieredCache

ROUND_S = 1.0
PER_ROUND_MAX = 16
# A timer may come early by its resolution, and a bound is not to be tested at its very edge.
_MARGIN_S = 0.02

Outcome = Literal["ok", "stale", "unknown"]

log = structlog.get_logger(__name__)


class Audits:
    """Audits one in `one_in` hits of L1, 0 for none: drawn once a second from the cells that were read, so
    that a hit costs nothing more. Start it with `start`, end it with `close`."""

    def __init__(
        self,
        cache: "TieredCache",
        memory: MemoryTier,
        feed: ChangeFeed,
        one_in: int,
        *,
        choose: random.Random | None = None,
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._feed = feed
        self._one_in = one_in
        self._random = choose or random.Random()
        self._hits_seen = 0
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self.on_stale: Callable[[str, Record], None] = lambda _key, _record: None

    def start(self) -> None:
        if self._one_in:
            self._task = asyncio.create_task(self._run(), name="audit the cache")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            try:
                await self.round()
            except Exception:
                metrics.cache_background_failures.inc()
                log.exception("an audit of the cache failed")

    async def round(self) -> None:
        """Audits what is due since the last round, side by side."""
        hits = self._cache.stats.l1_hits
        self._due += (hits - self._hits_seen) / self._one_in
        self._hits_seen = hits
        due, self._due = int(self._due), self._due % 1
        cells = [(key, cell) for key, cell in self._memory.cells() if cell.loader is not None and cell.hits]
        if not due or not cells:
            return
        if due > PER_ROUND_MAX:
            metrics.cache_audits.labels("skipped").inc(due - PER_ROUND_MAX)
        # By their hits, so that what is read most is audited most.
        chosen = dict(self._random.choices(cells, [cell.hits for _, cell in cells], k=min(due, PER_ROUND_MAX)))
        async with asyncio.TaskGroup() as group:
            for key, cell in chosen.items():
                group.create_task(self._audited(key, cell))

    async def _audited(self, key: str, cell: Cell) -> None:
        record = cell.record
        outcome = await self._outcome(key, cell, record)
        if outcome is None:
            return
        metrics.cache_audits.labels(outcome).inc()
        if outcome == "stale":
            log.error(
                "a cached record is older than the bound allows",
                key=key, space=cell.space.name, asof=record.asof, deps=record.deps, applied=self._feed.applied,
            )  # fmt: skip
            self.on_stale(key, record)

    async def _outcome(self, key: str, cell: Cell, record: Record) -> Outcome | None:
        """None for what is not served at this moment: there is nothing to be wrong with it."""
        if cell.loader is None or not self._serves(key, cell, record):
            return None
        try:
            # L2 may have given a record from a replica that is further than this one, whose views of
            # the log the loader may read. A log that answers and is not there by now never was: then
            # the record's asof is a lie, and the truth the better known.
            if not await self._feed.reach(record.asof, DELTA_S) and not self._feed.is_fresh:
                return "unknown"
            async with asyncio.timeout(cell.space.hard_timeout_s):
                answer = await cell.loader()
        except NotFound:
            answer = b""  # no record that is served reads like this
        except (ServiceError, OSError, TimeoutError):
            return "unknown"
        truth = answer.value if isinstance(answer, Loaded) else answer
        if truth == record.value:
            return "ok"
        await asyncio.sleep(DELTA_S + _MARGIN_S)
        return "stale" if self._serves(key, cell, record) else "ok"

    def _serves(self, key: str, cell: Cell, record: Record) -> bool:
        """Whether a read of now would be given this very record, unlabelled."""
        if self._memory.find(key) is not cell or cell.record is not record:
            return False
        hits = cell.hits
        given = self._cache.peek(cell.space, key)
        cell.hits = hits  # this was no reader
        return given is not None
