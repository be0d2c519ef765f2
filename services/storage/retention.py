"""What is stored and nobody needs any more: old versions, invocations, runs, blobs, package folders.

Every hour the replica with the lease removes what the settings let go; what crashed writers left
behind goes at the start already. Each step is whole in
itself and finds its work anew, so one that fails, or ends with its replica, is done next time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, Self

import structlog

from services import metrics
from services.clock import rfc3339
from services.execution.packages import PackageFolders
from services.models import Skill
from services.ports import BlobStore, MetadataStore, RunStore
from services.skills.view import CatalogView

LOOK_S = 3600.0
# Removed in one transaction: more would keep writers waiting.
BATCH = 1000
_LEASE = "storage retention"
_WATCHED = "folder:"

log = structlog.get_logger(__name__)


class Kept(NamedTuple):
    """How much is kept: versions of a watched skill, days of invocations, hours of unused files."""

    versions: int
    invocation_days: float
    unused_h: float


class StorageRetention:
    """One task; `look` is one round of it. `now` is the wall clock, in UTC."""

    def __init__(
        self,
        store: MetadataStore,
        runs: RunStore,
        blobs: BlobStore,
        view: CatalogView,
        packages: PackageFolders,
        kept: Kept,
        *,
        replica: str,
        now: Callable[[], datetime],
        look_s: float = LOOK_S,
    ) -> None:
        self._store = store
        self._runs = runs
        self._blobs = blobs
        self._view = view
        self._packages = packages
        self._kept = kept
        self._replica = replica
        self._now = now
        self._look_s = look_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="storage retention")
        return self

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def look(self) -> None:
        """Removes what may go; the folders of this machine also without the lease."""
        await self._step("packages", self._prune_packages)
        await self._step("the rest", self._with_lease)

    async def _run(self) -> None:
        await self._step("leftovers", self._remove_leftovers)
        while True:
            await asyncio.sleep(self._look_s)
            await self.look()

    async def _step(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Exception:
            metrics.retention_failures.inc()
            log.exception("what is not needed could not be removed; trying again", what=what)

    async def _with_lease(self) -> None:
        if await self._store.acquire_lease(_LEASE, self._replica, self._look_s * 2):
            # Versions first: it is they who name the blobs.
            await self._step("versions", self._prune_versions)
            await self._step("invocations", self._expire_invocations)
            await self._step("runs", self._expire_runs)
            await self._step("blobs", self._sweep)

    async def _remove_leftovers(self) -> None:
        if removed := await self._blobs.remove_leftovers():
            log.info("leftovers of crashed writes removed", files=removed)

    async def _prune_versions(self) -> None:
        removed = 0
        for skill in list(self._view):
            if skill.last_version > self._kept.versions and await self._is_watched(skill):
                removed += await self._store.prune_versions(skill.id, self._kept.versions)
        if removed:
            metrics.versions_pruned.inc(removed)
            log.info("old versions removed", versions=removed)

    async def _is_watched(self, skill: Skill) -> bool:
        # What is out of service, or was never in it, is saved over and over all the same.
        newest = skill.active or await self._store.version(skill.id, skill.last_version)
        return newest.source.startswith(_WATCHED)

    async def _expire_invocations(self) -> None:
        before = rfc3339(self._now() - timedelta(days=self._kept.invocation_days))
        if removed := await _in_batches(partial(self._store.expire_invocations, before)):
            metrics.invocations_expired.inc(removed)
            log.info("old invocations removed", invocations=removed)

    async def _expire_runs(self) -> None:
        before = rfc3339(self._now())
        if removed := await _in_batches(partial(self._runs.expire_runs, before)):
            metrics.runs_expired.inc(removed)
            log.info("expired runs removed", runs=removed)

    async def _sweep(self) -> None:
        swept = await self._blobs.sweep(self._store.blobs_in_use, self._kept.unused_h * 3600)
        if swept.blobs:
            metrics.blobs_swept.inc(swept.blobs)
            metrics.blob_bytes_swept.inc(swept.bytes)
            log.info("unused blobs removed", blobs=swept.blobs, bytes=swept.bytes)

    async def _prune_packages(self) -> None:
        removed = await self._packages.prune(self._kept.unused_h * 3600)
        if removed:
            metrics.packages_pruned.inc(removed)
            log.info("unused package folders removed", folders=removed)


async def _in_batches(expire: Callable[[int], Awaitable[int]]) -> int:
    """How many went in all; `expire` removes at most the number it is given and says how many it did."""
    removed = count = await expire(BATCH)
    while count == BATCH:
        count = await expire(BATCH)
        removed += count
    return removed
