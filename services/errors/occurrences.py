"""Counting failures: in memory at once, in the database in batches, by one task."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from services import metrics
from services.errors.nouns import Incident
from services.failures import Unavailable
from services.ports import IncidentStore

# Distinct incidents that may wait for the database; their counts have no bound.
WAITING_MAX = 1000
_BATCH_MAX = 200
# A tool that fails in a loop costs five transactions a second, not hundreds.
_PAUSE_S = 0.2
_RETRY_S = 0.5
_FLUSH_S = 1.0

log = structlog.get_logger(__name__)


class OccurrenceLog:
    """Start it with `start`, end it with `close`, which returns once everything is written."""

    def __init__(self, store: IncidentStore, on_written: Callable[[Sequence[Incident]], None]) -> None:
        self._store = store
        self._on_written = on_written
        self._waiting: dict[str, Incident] = {}
        self._arrived = asyncio.Event()
        self._hurry = asyncio.Event()
        self._all_written = asyncio.Event()
        self._all_written.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="occurrences")

    def add(self, occurrence: Incident) -> bool:
        """Counts a failure; False when too many other incidents wait already."""
        before = self._waiting.get(occurrence.id)
        if before is None and len(self._waiting) >= WAITING_MAX:
            metrics.incidents_refused.inc()
            return False
        self._waiting[occurrence.id] = occurrence if before is None else _merged(before, occurrence)
        self._all_written.clear()
        self._arrived.set()
        return True

    async def flush(self) -> None:
        """Returns when everything added so far is written. Raises `Unavailable` after a second."""
        self._hurry.set()
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._all_written.wait()
        except TimeoutError as error:
            raise Unavailable("the newest incidents cannot be written now") from error

    async def close(self) -> None:
        """The caller bounds the wait; what is not written when it is cancelled is lost, and said so."""
        if self._task is None:
            return
        self._hurry.set()
        try:
            await self._all_written.wait()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._waiting:
                log.error("incidents are lost: the database did not take them in time", lost=len(self._waiting))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._write(list(self._waiting.values())[:_BATCH_MAX])
            self._all_written.set()
            try:
                async with asyncio.timeout(_PAUSE_S):
                    await self._hurry.wait()
            except TimeoutError:
                continue
            finally:
                self._hurry.clear()

    async def _write(self, batch: list[Incident]) -> None:
        """A batch stays in `_waiting` until it is written; what is counted meanwhile stays for the next."""
        try:
            written = await self._store.record(batch)
        except Unavailable as error:
            log.warning("incidents wait for the database", waiting=len(self._waiting), error=str(error))
            await asyncio.sleep(_RETRY_S)
            return
        for incident in batch:
            metrics.incidents_recorded.labels(incident.error_class).inc(incident.count)
            left = self._waiting[incident.id].count - incident.count
            if left:
                self._waiting[incident.id] = msgspec.structs.replace(self._waiting[incident.id], count=left)
            else:
                del self._waiting[incident.id]
        self._on_written(written)


def _merged(before: Incident, later: Incident) -> Incident:
    return msgspec.structs.replace(before, count=before.count + later.count, last_at=later.last_at)
