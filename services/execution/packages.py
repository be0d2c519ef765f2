"""The files of skills' versions as folders, for sandboxes to bind."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from services.failures import Unavailable
from services.models import FileEntry
from services.ports import BlobStore


class PackageFolders:
    """`root/<digest in hex>` for every version that was run here, each written once.

    Replicas may share `root`. Whoever is given a folder touches it, and `prune` removes those that
    nobody has touched for long; a lock on `root` keeps the two apart.
    """

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root.absolute()
        self._blobs = blobs
        self._known: dict[str, Path] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def folder(self, digest: str, manifest: Sequence[FileEntry]) -> Path:
        """The folder of a version; concurrent callers of one digest write it once.

        Raises `NotFound` for a blob that is gone, `Unavailable` when it cannot be written. A
        cancelled caller leaves nothing half-written; the next one begins anew.
        """
        found = self._known.get(digest)
        if found is not None and await asyncio.to_thread(self._touch, found):
            return found
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            written = self._known[digest] = await self._written(digest, manifest)
        self._locks.pop(digest, None)
        return written

    async def prune(self, older_than_s: float) -> int:
        """Removes the folders that nobody was given for so long, and what crashes left; answers how many."""
        return await asyncio.to_thread(self._prune, older_than_s)

    async def _written(self, digest: str, manifest: Sequence[FileEntry]) -> Path:
        target = self._root / digest.removeprefix("sha256:")
        if not await asyncio.to_thread(self._touch, target):
            try:
                await self._blobs.materialize({entry.path: entry.sha256 for entry in manifest}, target)
            except OSError as error:
                # Another replica on the same root was first: its folder is as good, it has the same digest.
                if not await asyncio.to_thread(target.is_dir):
                    raise Unavailable(f"the files of {digest} cannot be written: {error}") from error
        return target

    def _touch(self, folder: Path) -> bool:
        """False when it is not there."""
        try:
            with self._locked(fcntl.LOCK_SH):
                os.utime(folder)
        except FileNotFoundError:
            return False
        return True

    def _prune(self, older_than_s: float) -> int:
        before_s = time.time_ns() / 1e9 - older_than_s  # wall clock, as file times are
        gone = []
        with suppress(FileNotFoundError), self._locked(fcntl.LOCK_EX):
            for folder in self._root.iterdir():
                if folder.stat().st_mtime < before_s:
                    away = folder.with_name(f".{folder.name.lstrip('.')}.gone")
                    gone.append(folder.rename(away))
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return len(gone)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)
