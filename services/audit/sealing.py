"""Sealing the change log into the audit log: one task a replica, of which the one with the lease works.

It follows the log to know that there is something to seal, and then reads the rows from the database,
from the newest record on. So nothing is lost by a replica that ends, is killed or was never told: what it
left is what the next one finds. The lease saves work and is no lock; that two seal at once is settled by the
store, which takes a record for one place in the chain once.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Self

import structlog

from services import metrics
from services.audit.chain import Seal, head_of, seal
from services.audit.nouns import AuditHead
from services.clock import Monotonic, monotonic_s, utc_now
from services.failures import Conflict, Forbidden, Unavailable
from services.models import Change
from services.ports import APPENDED_MAX, AuditStore, CatalogSnapshot, MetadataStore

LEASE = "audit"
# One that holds the lease and is killed is followed by another within their sum.
TTL_S = 10.0
LOOK_S = 3.0
# Changes of a burst are sealed together: a commit of records costs the disk what a publish does.
PAUSE_S = 0.5
# Between two lines of the log that tell the head: what is kept of the log elsewhere proves the chain up to there.
TELL_S = 300.0

log = structlog.get_logger(__name__)


class AuditSealing:
    """A `ChangeSink`; `newest` is the seq of the log's end when it begins to follow."""

    def __init__(
        self,
        store: MetadataStore,
        audit: AuditStore,
        by_seal: Seal,
        newest: int,
        *,
        replica: str,
        look_s: float = LOOK_S,
        pause_s: float = PAUSE_S,
        clock: Monotonic = monotonic_s,
    ) -> None:
        self._store = store
        self._audit = audit
        self._seal = by_seal
        self._newest = newest
        self._replica = replica
        self._look_s = look_s
        self._pause_s = pause_s
        self._clock = clock
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._head: AuditHead | None = None
        self._is_sure = False  # that the head is still that one
        self._told: AuditHead | None = None
        self._told_s = -TELL_S
        self._failing = False

    def start(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="audit sealing")
        return self

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._told is not None:
            self._tell()
            with contextlib.suppress(Unavailable):  # it runs out by itself
                await self._store.release_lease(LEASE, self._replica)

    def apply(self, changes: Sequence[Change]) -> None:
        self._newest = changes[-1].seq
        self._measure()
        self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._newest = snapshot.position.seq
        self._is_sure = False  # it may have gone back with the database
        self._news.set()

    async def look(self) -> bool:
        """Seals what is not sealed, if it is this replica's turn; False when another one's lease was in the way.
        Raises `Unavailable`."""
        if not self._is_sure or self._sealed < self._newest:
            self._see(await self._audit.audit_head())
        if self._sealed >= self._newest:
            return True
        if not await self._store.acquire_lease(LEASE, self._replica, TTL_S):
            return False
        while True:
            changes = await self._store.tail(self._sealed, APPENDED_MAX)
            if changes:
                await self._append(changes)
            if len(changes) < APPENDED_MAX:
                return True

    @property
    def _sealed(self) -> int:
        return self._head.seq if self._head else 0

    async def _append(self, changes: Sequence[Change]) -> None:
        head = self._head
        if head is not None and head.key_id not in ("", self._seal.key_id):
            raise Forbidden(f"the audit log is sealed with the key {head.key_id}, and audit_key is not that one")
        if head is not None and changes[0].seq > head.seq + 1:
            metrics.audit_failures.inc()
            log.error("rows of the change log went before they were sealed", after=head.seq, before=changes[0].seq)
        records = seal(changes, head, utc_now(), self._seal)
        await self._audit.append_audit(records)
        self._see(head_of(records[-1]))
        if self._clock() - self._told_s >= TELL_S:
            self._tell()

    def _see(self, head: AuditHead | None) -> None:
        self._head, self._is_sure = head, True
        metrics.audit_head.set(self._sealed)
        self._measure()

    def _measure(self) -> None:
        metrics.audit_lag.set(max(0, self._newest - self._sealed))

    def _tell(self) -> None:
        if self._head is not None and self._head != self._told:
            log.info("the audit log has a new head", seq=self._head.seq, hash=self._head.hash)
        self._told, self._told_s = self._head, self._clock()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._news.wait()
            self._news.clear()
            await asyncio.sleep(self._pause_s)
            # Whoever has not the lease need not ask for it at every change.
            while not await self._tried():  # noqa: ASYNC110  # the event is another replica's
                await asyncio.sleep(self._look_s)

    async def _tried(self) -> bool:
        try:
            is_done = await self.look()
        except Conflict:
            return False  # another replica was faster, as when this one was paused for longer than its lease
        except Exception:
            metrics.audit_failures.inc()
            if not self._failing:
                log.exception("the change log cannot be sealed; trying again", newest=self._newest)
            self._failing = True
            return False
        if self._failing:
            log.info("the change log is sealed again", sealed=self._sealed)
        self._failing = False
        return is_done
