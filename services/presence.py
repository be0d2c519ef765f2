"""Which replicas there are, and where the others reach them: a lease that each holds while it lives.

The lease is named after the replica and held by its address. One that ended says so; one that was
killed is gone when its lease has run out.
"""

import asyncio

import structlog

from services import metrics
from services.ports import MetadataStore

RENEW_S = 10.0
TTL_S = 30.0

log = structlog.get_logger(__name__)


class Presence:
    """This replica's; `address` is empty for one that no other can reach."""

    def __init__(self, store: MetadataStore, replica: str, address: str, *, renew_s: float = RENEW_S) -> None:
        self._store = store
        self.replica = replica
        self._address = address or "-"
        self._renew_s = renew_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises `Unavailable`: nobody is to work for a replica of which the others do not know."""
        await self._announce()
        self._task = asyncio.create_task(self._renew(), name="presence")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._store.release_lease(_lease(self.replica), self._address)

    async def is_alive(self, replica: str) -> bool:
        return await self._store.lease_holder(_lease(replica)) is not None

    async def address_of(self, replica: str) -> str | None:
        """None for a replica that is gone, that never was, or that cannot be reached."""
        holder = await self._store.lease_holder(_lease(replica))
        return None if holder in (None, "-") else holder

    async def _announce(self) -> None:
        await self._store.acquire_lease(_lease(self.replica), self._address, TTL_S)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            try:
                await self._announce()
            except Exception:
                metrics.presence_failures.inc()
                log.exception("the other replicas could not be told that this one lives; trying again")


def _lease(replica: str) -> str:
    return f"replica:{replica}"
