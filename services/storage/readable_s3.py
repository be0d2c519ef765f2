"""Copies of active versions for whoever looks into the bucket: `skills/<owner>/<name>/v<n>/<path>`, and
`latest.json` beside them. They follow the change log and are never read back.

One replica writes them, by lease. Each keeps the skills that have changed since it was last the writer,
so what the writer had not done when it ended, another one does; and whoever becomes the writer looks
through all skills once. More than `CHANGED_MAX` are forgotten, and all looked through instead.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from services import metrics
from services.models import Change, Skill, Version
from services.ports import CatalogSnapshot, MetadataStore
from services.storage.aws import Refusal, together
from services.storage.blobs_s3 import S3Blobs, key_of

CHANGED_MAX = 10_000
LEASE_S = 60.0
RETRY_S = 5.0
_LEASE = "readable copies"

log = structlog.get_logger(__name__)


class ReadableCopies:
    """Follows the log; start it with `start`, end it with `close`."""

    def __init__(self, blobs: S3Blobs, store: MetadataStore, prefix: str, replica: str) -> None:
        self._blobs = blobs
        self._store = store
        self._prefix = prefix
        self._replica = replica
        self._changed: dict[str, Skill] = {}
        self._news = asyncio.Event()
        self._is_writer = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._news.set()  # whoever starts may have to be the writer
        self._task = asyncio.create_task(self._run(), name="readable copies")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.skill is not None:
                self._changed[change.skill.id] = change.skill
        if len(self._changed) > CHANGED_MAX:
            metrics.copies_forgotten.inc(len(self._changed))
            self._changed.clear()
            self._is_writer = False  # whoever becomes it looks through all
        self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._changed = {skill.id: skill for skill in snapshot.skills}
        self._news.set()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._write_changed()
            except Exception:
                metrics.copies_failures.inc()
                log.exception("readable copies could not be written; trying again")
            if self._changed or not self._is_writer:
                await asyncio.sleep(RETRY_S)
                self._news.set()

    async def _write_changed(self) -> None:
        if not await self._store.acquire_lease(_LEASE, self._replica, LEASE_S):
            self._is_writer = False
            return
        there: set[str] | None = None
        if not self._is_writer:
            snapshot = await self._store.snapshot()
            self._changed = {skill.id: skill for skill in snapshot.skills} | self._changed
            there = {version["Key"] async for version in self._blobs.listed(self._prefix) if version["IsLatest"]}
            self._is_writer = True
        while self._changed:
            skill_id, skill = next(iter(self._changed.items()))
            await self._write(skill, there or set())
            if self._changed.get(skill_id) is skill:
                del self._changed[skill_id]

    async def _write(self, skill: Skill, there: set[str]) -> None:
        folder = f"{self._prefix}{skill.id}/"
        if skill.status == "removed":
            found = [version["Key"] async for version in self._blobs.listed(folder) if version["IsLatest"]]
            await together(self._delete, found)
            return
        if skill.active is None:
            await self._delete(f"{folder}latest.json")
            return
        await self._copy(folder, skill.active, there)
        latest = {
            "version": f"v{skill.active.version}",
            "digest": skill.active.digest,
            "published_at": skill.active.created_at,
        }
        body = msgspec.json.encode(latest)
        await self._call("put_object", Key=f"{folder}latest.json", Body=body, ContentType="application/json")

    async def _copy(self, folder: str, version: Version, there: set[str]) -> None:
        async def copied(pair: tuple[str, str]) -> None:
            key, sha256 = pair
            try:
                await self._call(
                    "copy_object", Key=key, CopySource={"Bucket": self._blobs.bucket, "Key": key_of(sha256)}
                )
            except Refusal as refusal:
                # A blob that is missing is the blob store's trouble, told to whoever reads it; the other copies count.
                metrics.copies_failures.inc()
                log.warning("a file could not be copied", key=key, error=refusal.code)

        pairs = [(f"{folder}v{version.version}/{entry.path}", entry.sha256) for entry in version.manifest]
        await together(copied, [pair for pair in pairs if pair[0] not in there])

    async def _delete(self, key: str) -> None:
        await self._call("delete_object", Key=key)

    async def _call(self, operation: str, **parameters: Any) -> None:
        await self._blobs.s3.call(operation, Bucket=self._blobs.bucket, **parameters)
