"""Making the catalog follow a watched folder: what differs from the ledger is published.

The ledger keeps, for every path, the digest this folder last gave. A scan compares with the
ledger, not with the catalog: a rollback or an upload that came later is not undone by a restart.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path, PurePath

import structlog

from services.failures import ServiceError
from services.models import Diagnostic, LedgerEntry
from services.ports import MetadataStore
from services.skills.catalog import BATCH_MAX, Catalog
from services.skills.package import Package, find_roots, has_skill_md, is_litter, read_folder

# More than this share of a folder gone at once is a mistake or an unmounted disk, not an edit;
# below five packages a share says nothing.
GONE_SHARE_MAX = 0.2
GONE_ALLOWED = 5

log = structlog.get_logger(__name__)


class FolderScan:
    """Publishes one watched folder's packages under one owner. One call at a time."""

    def __init__(self, root: Path, owner: str, store: MetadataStore, catalog: Catalog) -> None:
        self.root = root
        self.source = f"folder:{root.name}"
        self._owner = owner
        self._store = store
        self._catalog = catalog
        self._ledger: dict[str, LedgerEntry] = {}
        self.held: str = ""
        """Why removals are being held back, empty when they are not."""

    def knows(self, path: str) -> bool:
        """True for a path that has given a package before."""
        entry = self._ledger.get(path)
        return entry is not None and entry.digest != ""

    async def everything(self) -> int:
        """Scans the whole folder; answers how many packages were published or noted anew."""
        self._ledger = await self._store.ledger(self.source)
        roots = await asyncio.to_thread(find_roots, self.root)
        paths = [path for root in roots if (path := root.relative_to(self.root).as_posix()) != "."]
        done = await self.packages(paths)
        await self.remove({path for path in self._ledger if self.knows(path)} - set(paths))
        await self.note_bare_folders()
        return done

    async def packages(self, paths: Iterable[str], *, again: bool = False) -> int:
        """Reads and publishes these packages where they differ from the ledger (or in any case, for
        `again`); a path that cannot be read now is skipped and logged."""
        ordered = sorted(set(paths))
        done = 0
        for start in range(0, len(ordered), BATCH_MAX):
            batch = await asyncio.to_thread(self._read, ordered[start : start + BATCH_MAX])
            changed = [(path, package) for path, package in batch if again or self._differs(path, package)]
            if changed:
                await self._commit(changed)
                done += len(changed)
        return done

    async def remove(self, paths: Iterable[str]) -> None:
        """Takes packages out of service whose folder is gone, unless too many are gone at once."""
        known = [path for path in paths if path in self._ledger]
        gone = await asyncio.to_thread(lambda: sorted(p for p in known if not has_skill_md(self.root / p)))
        allowed = max(GONE_ALLOWED, int(len(self._ledger) * GONE_SHARE_MAX))
        if not self.root.is_dir() or len(gone) > allowed:
            self.held = (
                f"{len(gone)} of {len(self._ledger)} packages vanished from {self.root.name} at once; "
                "they stay in service until the folder is back or they are deleted by hand"
            )
            log.error("removals are held back", gone=len(gone), known=len(self._ledger), folder=str(self.root))
            return
        self.held = ""
        for path in gone:
            entry = self._ledger.pop(path)
            await self._catalog.forget(self.source, path, entry.skill_id)
            log.info("package removed", path=path, skill=entry.skill_id)
        if gone:
            # A package that had to stand back for one of these may serve now.
            await self.packages([path for path, entry in self._ledger.items() if entry.skill_id is None], again=True)

    def _read(self, paths: list[str]) -> list[tuple[str, Package]]:
        found: list[tuple[str, Package]] = []
        for path in paths:
            try:
                found.append((path, read_folder(self.root / path)))
            except OSError as error:
                log.warning("a package cannot be read now", path=path, error=str(error))
        return found

    def _differs(self, path: str, package: Package) -> bool:
        entry = self._ledger.get(path)
        if entry is None or entry.digest != package.digest:
            return True
        # A package that could not be read has no files and thus always the same digest.
        return not package.files and entry.diagnostics != package.diagnostics

    async def _commit(self, found: list[tuple[str, Package]]) -> None:
        """Publishes what may serve; notes what may not, with the reason."""
        publishable: list[tuple[str, Package]] = []
        for path, package in found:
            reason = self._stands_back(path, package, [other for other, _ in publishable])
            if reason is None:
                publishable.append((path, package))
                entry = LedgerEntry(
                    self.source, path, package.digest, f"{self._owner}/{package.name}", package.diagnostics
                )
            else:
                entry = LedgerEntry(self.source, path, package.digest, None, (*package.diagnostics, reason))
                await self._store.note([entry])
            self._ledger[path] = entry
        try:
            await self._catalog.publish_found(self.source, self._owner, publishable)
        except ServiceError:
            for path, _ in publishable:  # not committed: the next scan must see them as different
                del self._ledger[path]
            raise

    def _stands_back(self, path: str, package: Package, publishing: list[str]) -> Diagnostic | None:
        """Why this package is not published, None when it is."""
        if package.name is None:
            return Diagnostic("error", "the package has no usable name and is not served")
        skill_id = f"{self._owner}/{package.name}"
        for other, entry in self._ledger.items():
            if other == path or entry.skill_id != skill_id or not has_skill_md(self.root / other):
                continue
            if other in publishing or other < path or self._is_published(entry):
                reason = f"{other} gives the same skill {skill_id} and serves it"
                return Diagnostic("error", reason, hint="rename one of them")
        return None

    def _is_published(self, entry: LedgerEntry) -> bool:
        skill = self._catalog.view.find(entry.skill_id) if entry.skill_id else None
        return skill is not None and skill.active is not None

    async def note_bare_folders(self) -> None:
        """Keeps a diagnostic for every first-level folder without any package, where people look for it."""
        bare = await asyncio.to_thread(self._bare_folders)
        noted = {path: entry for path, entry in self._ledger.items() if entry.digest == ""}
        missing = Diagnostic("error", "there is no SKILL.md in this folder", hint="every skill needs one")
        entries = [LedgerEntry(self.source, name, "", None, (missing,)) for name in sorted(bare - set(noted))]
        cleared = [LedgerEntry(self.source, name, "", None, ()) for name in sorted(set(noted) - bare)]
        if entries or cleared:
            await self._store.note([*entries, *cleared])
        self._ledger.update({entry.path: entry for entry in entries})
        for entry in cleared:
            if self._ledger[entry.path].digest == "":
                del self._ledger[entry.path]

    def _bare_folders(self) -> set[str]:
        folders = [entry for entry in self.root.iterdir() if entry.is_dir() and not is_litter(PurePath(entry.name))]
        return {folder.name for folder in folders if not folder.name.startswith(".") and not find_roots(folder)}
