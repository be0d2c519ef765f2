"""Publishing and reading skills: the use cases behind every edge.

The order of a write: judge the package, make its blobs durable, then one transaction of the
store with the change rows. What is read comes from this replica's view of the log or from the
store's immutable versions.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from services import metrics
from services.caller import Sees
from services.changes.log import ChangeFeed
from services.failures import Forbidden, Invalid, NotFound
from services.models import Diagnostic, Draft, FileEntry, LedgerEntry, Published, Skill, Version
from services.ports import BlobStore, MetadataStore
from services.skills.archive import read_zip
from services.skills.package import Package, why_quarantined
from services.skills.view import CatalogView

# One transaction holds at most this many versions, so that an import never keeps other writers
# waiting for long. One of DynamoDB takes 100 items: 5 for each version, and 10 for all.
BATCH_MAX = 18
# Before the path of a watched folder, in the source of what it gave.
FOLDER_SOURCE = "folder:"


class Catalog:
    """The write side (through the store) and the read side (through the view) of all skills."""

    def __init__(self, store: MetadataStore, blobs: BlobStore, view: CatalogView, feed: ChangeFeed) -> None:
        self._store = store
        self._blobs = blobs
        self._feed = feed
        self.view = view

    async def publish_zip(
        self,
        data: bytes,
        *,
        owner: str,
        created_by: str,
        activate: bool = True,
        if_match: str | None = None,
    ) -> Published:
        """Raises `Invalid` with every diagnostic for a package that cannot be served, `Conflict` for
        a stale `if_match`; nothing is written then."""
        package = await asyncio.to_thread(read_zip, data)
        if package.grade == "quarantined" or package.name is None:
            metrics.publishes.labels("refused").inc()
            raise Invalid(
                f"the package cannot be served: {why_quarantined(package)}",
                diagnostics=[_plain(d) for d in package.diagnostics],
            )
        await self.store_blobs([package])
        draft = package.draft(owner=owner, created_by=created_by, source="upload", activate=activate, if_match=if_match)
        return (await self._committed([draft]))[0]

    async def publish_found(self, source: str, owner: str, found: Sequence[tuple[str, Package]]) -> list[Published]:
        """Publishes packages of a watched folder, given as (path in the folder, package), in batches."""
        published: list[Published] = []
        for start in range(0, len(found), BATCH_MAX):
            batch = found[start : start + BATCH_MAX]
            await self.store_blobs([package for _, package in batch])
            drafts = [
                package.draft(owner=owner, created_by="watcher", source=source, source_path=path)
                for path, package in batch
            ]
            published += await self._committed(drafts)
        return published

    async def rollback(self, skill_id: str, version: int, by: str, sees: Sees) -> Published:
        """Makes an earlier (or any) version the active one. Raises `NotFound` or `Invalid`."""
        self.view.get(skill_id, sees)
        published = await self._store.activate(skill_id, version, by)
        self._feed.committed(published.seq)
        return published

    async def delete(self, skill_id: str, by: str, sees: Sees) -> Published:
        """Takes the skill out of service; its versions stay."""
        self.view.get(skill_id, sees)
        published = await self._store.deactivate(skill_id, by)
        self._feed.committed(published.seq)
        return published

    async def remove(self, skill_id: str, by: str) -> Published:
        """Hard delete: nothing stays but the number of the last version."""
        return self._seen(await self._store.remove(skill_id, by))

    async def remove_version(self, skill_id: str, version: int, by: str) -> Published:
        """Removes one version for good. Raises `NotFound`, `Conflict`."""
        return self._seen(await self._store.remove_version(skill_id, version, by))

    async def restore(self, skill_id: str, by: str) -> Published:
        """Puts a deleted skill back in service. Raises `Conflict` for one that is not deleted."""
        return self._seen(await self._store.restore(skill_id, by))

    async def pin(self, skill_id: str, version: int, pinned: bool, by: str) -> Published:
        """Keeps a version from retention, or no longer."""
        return self._seen(await self._store.pin(skill_id, version, pinned, by))

    def _seen(self, published: Published) -> Published:
        self._feed.committed(published.seq)
        return published

    async def forget(self, entry: LedgerEntry, *, retiring: bool) -> None:
        """A watched package is gone: its ledger entry goes, and its skill, if so asked, out of service."""
        if retiring:
            await self.retire(entry)
        # Last: after a crash in between, the next scan finds the entry and does this again.
        await self._store.note([LedgerEntry(entry.source, entry.path, "", None, ())])

    async def retire(self, entry: LedgerEntry) -> None:
        """Takes a skill out of service that no package of this watched folder gives any more; one
        whose active version came from elsewhere stays. Where the folder was before it was moved, which
        nobody watches any more, is not elsewhere: its packages were found as they had been, so no
        version names its new place."""
        if entry.skill_id is None:
            return
        await self._feed.tail()  # what was published a moment ago must be seen, or it would stay for ever
        skill = self.view.find(entry.skill_id)
        if skill is None or skill.active is None:
            return
        source = skill.active.source
        is_its_own = source == entry.source
        if not is_its_own and source.startswith(FOLDER_SOURCE) and skill.active.digest == entry.digest:
            is_its_own = await self._store.lease_holder(source) is None
        if is_its_own:
            with suppress(NotFound):  # somebody deleted it meanwhile
                self._feed.committed((await self._store.deactivate(skill.id, "watcher")).seq)

    async def versions(self, skill_id: str, sees: Sees) -> list[Version]:
        self.view.get(skill_id, sees)
        return await self._store.versions(skill_id)

    async def version(self, skill_id: str, number: int | None, sees: Sees) -> tuple[Skill, Version]:
        """A version (the active one for None) of a skill that this caller may see. Raises `NotFound`."""
        skill = self.view.get(skill_id, sees)
        if number is None:
            if skill.active is None:
                raise NotFound(f"{skill_id} has no active version", skill=skill_id)
            return skill, skill.active
        if skill.active is not None and skill.active.version == number:
            return skill, skill.active
        return skill, await self._store.version(skill_id, number)

    async def blob(self, entry: FileEntry) -> bytes:
        """A file's verified bytes; ask `served_file` first whether it may be given out."""
        return await self._blobs.get(entry.sha256)

    async def store_blobs(self, packages: Sequence[Package]) -> None:
        await self._blobs.put_many(
            {entry.sha256: package.files[entry.path] for package in packages for entry in package.manifest}
        )

    async def _committed(self, drafts: Sequence[Draft]) -> list[Published]:
        published = await self._store.publish(drafts)
        for draft, answer in zip(drafts, published, strict=True):
            outcome = draft.grade if answer.changed else "unchanged"
            metrics.publishes.labels(outcome).inc()
        self._feed.committed(max((answer.seq for answer in published), default=0))
        return published


def may_be_given_out(version: Version) -> None:
    """Raises `Forbidden` for a quarantined version, whose content never is."""
    if version.grade == "quarantined":
        raise Forbidden("this version is quarantined; its files are not served", code="quarantined")


def served_file(version: Version, path: str) -> FileEntry:
    """Raises `NotFound`, and `Forbidden` for a quarantined version."""
    may_be_given_out(version)
    for entry in version.manifest:
        if entry.path == path:
            return entry
    raise NotFound(f"version {version.version} has no file {path!r}", path=path)


def _plain(diagnostic: Diagnostic) -> dict[str, object]:
    return msgspec.structs.asdict(diagnostic)
