"""Making the catalog follow a watched folder: what differs from the ledger is published.

The ledger keeps, for every path, the digest this folder last gave. A scan compares with the
ledger, not with the catalog: a rollback or an upload that came later is not undone by a restart.
"""

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path, PurePath

import structlog
from msgspec import structs

from services.failures import ServiceError
from services.models import Diagnostic, LedgerEntry
from services.ports import MetadataStore
from services.skills.catalog import BATCH_MAX, FOLDER_SOURCE, Catalog
from services.skills.package import Package, find_roots, has_skill_md, is_litter, printable, read_folder
from services.skills.stamps import Stamp, Stamps, look_at

# More than this share of a folder gone at once is a mistake or an unmounted disk, not an edit;
# below five packages a share says nothing.
GONE_SHARE_MAX = 0.2
GONE_ALLOWED = 5

_NO_SKILL_MD = Diagnostic("error", "there is no SKILL.md in this folder", hint="every skill needs one")
_UNREADABLE = Diagnostic("error", "this folder may not be read by the service", hint="chmod it")
_NOT_UTF8 = Diagnostic("error", "the name of this folder is not UTF-8", hint="rename it")
_LINK = Diagnostic("error", "links to folders are not followed", hint="copy the folder, or watch the one it names")

log = structlog.get_logger(__name__)


class FolderScan:
    """Publishes one watched folder's packages under one owner. One call at a time."""

    def __init__(
        self, root: Path, owner: str, store: MetadataStore, catalog: Catalog, *, stamps: Stamps | None = None
    ) -> None:
        """`stamps` spare a start the reading of what has not changed; without them everything is read."""
        self.root = root
        self._stamps = stamps
        self.source = f"{FOLDER_SOURCE}{root}"
        self._owner = owner
        self._store = store
        self._catalog = catalog
        self._ledger: dict[str, LedgerEntry] = {}
        self._held_paths: set[str] = set()
        self._unread: set[str] = set()  # when they were last tried
        self.held: str = ""
        """Why removals are being held back, empty when they are not."""

    def knows(self, path: str) -> bool:
        """True for a path that has given a package before."""
        entry = self._ledger.get(path)
        return entry is not None and entry.digest != ""

    def known_under(self, path: str) -> list[str]:
        """The paths below this one that have given a package before."""
        return [known for known in self._ledger if known.startswith(f"{path}/") and self.knows(known)]

    def holds(self, path: str) -> bool:
        """True when there is a package now. What lies behind a link is not part of the folder."""
        folder = self.root / path
        below = PurePath(path)
        # Asked of every known path at each start: `resolve` would ask for the whole way to the root as well.
        return has_skill_md(folder) and not any((self.root / part).is_symlink() for part in (below, *below.parents[:-1]))

    async def everything(self, *, trusting: bool = False) -> int:
        """Scans the whole folder; answers how many packages were published or noted anew. A `trusting`
        scan does not read those whose files look as they did when they were read before."""
        self._ledger = await self._store.ledger(self.source)
        roots = await asyncio.to_thread(find_roots, self.root)
        paths = [path for root in roots if (path := root.relative_to(self.root).as_posix()) != "."]
        looks = await asyncio.to_thread(self._looks, paths) if self._stamps else {}
        kept = await asyncio.to_thread(self._stamps.read) if self._stamps and trusting else {}
        known = {path for path, stamp in kept.items() if path in looks and stamp == self._stamp(path, looks[path])}
        done = await self.packages([path for path in paths if path not in known])
        await self.remove({path for path in self._ledger if self.knows(path)} - set(paths))
        await self.note_bare_folders()
        if self._stamps:
            now = {path: stamp for path, look in looks.items() if (stamp := self._stamp(path, look)) is not None}
            await asyncio.to_thread(self._stamps.write, now)
        return done

    async def skill(self, skill_id: str) -> int:
        """Scans the packages that give this skill; answers as `everything` does."""
        self._ledger = await self._store.ledger(self.source)
        paths = {path for path, entry in self._ledger.items() if entry.skill_id == skill_id}
        there = await asyncio.to_thread(lambda: {path for path in paths if self.holds(path)})
        done = await self.packages(there)
        if paths - there:
            await self.remove(paths - there)
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
        """Takes packages out of service whose folder is gone, unless too many are gone at once.

        What counts is all that is missing now, not only `paths`: a folder that is being emptied
        arrives here in small portions.
        """
        is_there, missing = await asyncio.to_thread(self._missing)
        serving = [path for path in missing if self._is_published(self._ledger[path])]
        known = sum(entry.digest != "" for entry in self._ledger.values())
        if not is_there or len(serving) > max(GONE_ALLOWED, int(known * GONE_SHARE_MAX)):
            self._held_paths.update(paths)
            self.held = (
                f"{len(serving)} of {known} packages vanished from {self.root.name} at once; "
                "they stay in service until the folder is back or they are deleted by hand"
            )
            log.error("removals are held back", gone=len(serving), known=known, folder=str(self.root))
            return
        gone = sorted(missing & self._held_paths.union(paths))
        self._held_paths.clear()
        self.held = ""
        for path in gone:
            # A folder that was renamed gives its skill from the new path already.
            skill_id = self._ledger[path].skill_id
            moved = any(other != path and entry.skill_id == skill_id for other, entry in self._ledger.items())
            await self._catalog.forget(self._ledger[path], retiring=not moved)
            del self._ledger[path]
            log.info("package removed", path=path, skill=skill_id)
        if gone:
            await self._reconsider()

    async def note_bare_folders(self) -> None:
        """Keeps a diagnostic for every first-level folder without any package, where people look for it."""
        bare = await asyncio.to_thread(self._bare_folders)
        noted = {path: entry.diagnostics for path, entry in self._ledger.items() if entry.digest == ""}
        entries = [
            LedgerEntry(self.source, name, "", None, (diagnostic,))
            for name, diagnostic in sorted(bare.items())
            if noted.get(name) != (diagnostic,) and not self.knows(name)
        ]
        cleared = [LedgerEntry(self.source, name, "", None, ()) for name in sorted(noted.keys() - bare.keys())]
        if entries or cleared:
            await self._store.note([*entries, *cleared])
        self._ledger.update({entry.path: entry for entry in entries})
        for entry in cleared:
            del self._ledger[entry.path]

    def _looks(self, paths: list[str]) -> dict[str, bytes]:
        looks = ((path, look_at(self.root / path)) for path in paths)
        return {path: look for path, look in looks if look is not None}

    def _stamp(self, path: str, look: bytes) -> Stamp | None:
        """None for a path whose package the ledger does not have as it is now."""
        is_read = self.knows(path) and path not in self._unread
        return Stamp(look, self._ledger[path].digest) if is_read else None

    def _read(self, paths: list[str]) -> list[tuple[str, Package]]:
        found: list[tuple[str, Package]] = []
        for path in paths:
            if path != printable(path):
                log.warning("a package is left out: its path is not UTF-8", path=printable(path))
                continue
            try:
                found.append((path, read_folder(self.root / path)))
                self._unread.discard(path)
            except OSError as error:
                self._unread.add(path)
                log.warning("a package cannot be read now", path=path, error=str(error))
        return found

    def _differs(self, path: str, package: Package) -> bool:
        entry = self._ledger.get(path)
        if entry is None or entry.digest != package.digest:
            return True
        # The digest is of the files that could be read: a link beside them shows here only. What
        # stands back carries the reason as its last diagnostic.
        noted = entry.diagnostics if entry.skill_id is not None else entry.diagnostics[:-1]
        return noted != package.diagnostics

    async def _commit(self, found: list[tuple[str, Package]]) -> None:
        """Publishes what may serve; notes what may not, with the reason."""
        before = {path: entry for path, _ in found if (entry := self._ledger.get(path)) is not None}
        publishable: list[tuple[str, Package]] = []
        notes: list[LedgerEntry] = []
        for path, given in found:
            entry = before.get(path)
            package = _under_known_name(given, entry)
            reason = self._stands_back(path, package, [other for other, _ in publishable])
            skill_id = f"{self._owner}/{package.name}" if reason is None else None
            reasons = () if reason is None else (reason,)
            now = LedgerEntry(self.source, path, package.digest, skill_id, (*package.diagnostics, *reasons))
            self._ledger[path] = now
            if skill_id is not None and _is_news(package, entry, skill_id):
                publishable.append((path, package))
            else:
                notes.append(now)
        try:
            # First: after a crash in between, the next scan finds the old entries and does this again.
            given_now = {entry.skill_id for entry in self._ledger.values()}
            left = [entry for _, entry in sorted(before.items()) if entry.skill_id and entry.skill_id not in given_now]
            for renamed in left:
                await self._catalog.retire(renamed)
            await self._store.note(notes)
            await self._catalog.publish_found(self.source, self._owner, publishable)
        except ServiceError:
            for path, _ in found:  # not committed: the next scan must see them as different
                del self._ledger[path]
            self._ledger.update(before)
            raise
        if left:
            await self._reconsider()

    async def _reconsider(self) -> None:
        """Publishes what had to stand back for another package and no longer has to."""
        waiting = [path for path, entry in self._ledger.items() if entry.digest and entry.skill_id is None]
        await self.packages(waiting, again=True)

    def _stands_back(self, path: str, package: Package, publishing: list[str]) -> Diagnostic | None:
        """Why this package is not published, None when it is."""
        if package.name is None:
            return Diagnostic("error", "the package has no usable name and is not served")
        skill_id = f"{self._owner}/{package.name}"
        for other, entry in self._ledger.items():
            if other == path or entry.skill_id != skill_id or not self.holds(other):
                continue
            if other in publishing or other < path or self._is_published(entry):
                reason = f"{other} gives the same skill {skill_id} and was first"
                return Diagnostic("error", reason, hint="rename one of them")
        return None

    def _is_published(self, entry: LedgerEntry) -> bool:
        skill = self._catalog.view.find(entry.skill_id) if entry.skill_id else None
        return skill is not None and skill.active is not None

    def _missing(self) -> tuple[bool, set[str]]:
        """Whether the root is there, and the known paths that hold no package now."""
        return self.root.is_dir(), {path for path in self._ledger if self.knows(path) and not self.holds(path)}

    def _bare_folders(self) -> dict[str, Diagnostic]:
        if not self.root.is_dir():
            return {}
        bare: dict[str, Diagnostic] = {}
        for entry in self.root.iterdir():
            name = entry.name
            if not entry.is_dir() or is_litter(PurePath(name)) or name.startswith("."):
                continue
            if name != printable(name):
                bare[printable(name)] = _NOT_UTF8
            elif entry.is_symlink():
                bare[name] = _LINK
            elif not os.access(entry, os.R_OK | os.X_OK):
                bare[name] = _UNREADABLE
            elif not find_roots(entry):
                bare[name] = _NO_SKILL_MD
        return bare


def _under_known_name(package: Package, entry: LedgerEntry | None) -> Package:
    """A package that broke stays the skill it was: its frontmatter may not give the name any more."""
    if package.grade != "quarantined" or entry is None or entry.skill_id is None:
        return package
    return structs.replace(package, name=entry.skill_id.partition("/")[2])


def _is_news(package: Package, entry: LedgerEntry | None, skill_id: str) -> bool:
    """False when only the diagnostics differ: to publish that would undo a rollback."""
    if entry is None or entry.skill_id != skill_id or entry.digest != package.digest:
        return True
    was_broken = any(diagnostic.severity == "error" for diagnostic in entry.diagnostics)
    return was_broken and package.grade != "quarantined"
