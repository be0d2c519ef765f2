"""Keeping the change log from growing for ever: all but its newest rows are removed.

A reader that has fallen behind what is kept is told so by the rows themselves: the first one it
gets is not the one after its own (`ChangeFeed` reads the catalog anew, streams get a `reset`). A row
stays until the audit log has it.
"""

import asyncio
from typing import Self

import structlog

from services import metrics
from services.ports import AuditStore, MetadataStore

LOOK_S = 60.0
# Rows removed in one transaction: more would keep writers waiting.
BATCH = 2000
_LEASE = "change log retention"

log = structlog.get_logger(__name__)


class LogRetention:
    """One task that keeps the newest `keep_rows`; of several replicas the one with the lease works."""

    def __init__(
        self, store: MetadataStore, audit: AuditStore, replica: str, keep_rows: int, *, look_s: float = LOOK_S
    ) -> None:
        self._store = store
        self._audit = audit
        self._replica = replica
        self._keep_rows = keep_rows
        self._look_s = look_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="log retention")
        return self

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            try:
                if await self._store.acquire_lease(_LEASE, self._replica, self._look_s * 2):
                    await self._trim()
            except Exception:
                metrics.retention_failures.inc()
                log.exception("old rows of the change log could not be removed; trying again")

    async def _trim(self) -> None:
        head = await self._audit.audit_head()
        sealed = head.seq if head else 0
        removed = count = await self._store.trim(self._keep_rows, BATCH, sealed=sealed)
        while count == BATCH:
            count = await self._store.trim(self._keep_rows, BATCH, sealed=sealed)
            removed += count
        if removed:
            metrics.changes_removed.inc(removed)
            log.info("old rows of the change log removed", rows=removed)
