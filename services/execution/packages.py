"""The files of skills' versions as folders, for sandboxes to bind."""

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

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
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def folder(self, digest: str, manifest: Sequence[FileEntry]) -> Path:
        """The folder of a version; concurrent callers of one digest write it once.

        Raises `NotFound` for a blob that is gone, `Unavailable` when it cannot be written. A
        cancelled caller leaves nothing half-written; the next one begins anew.
        """
        target = self._root / digest.removeprefix("sha256:")
        if not await asyncio.to_thread(self._touch, target):
            lock = self._locks.setdefault(digest, asyncio.Lock())
            async with lock:
                await self._write(target, digest, manifest)
        return target

    async def prune(self, older_than_s: float) -> int:
        """Removes the folders that nobody was given for so long, and what crashes left; answers how many."""
        return await asyncio.to_thread(self._prune, older_than_s)

    async def _write(self, target: Path, digest: str, manifest: Sequence[FileEntry]) -> None:
        """Nothing when whoever had the lock before has written it."""
        if await asyncio.to_thread(self._touch, target):
            return
        try:
            await self._blobs.materialize({entry.path: entry.sha256 for entry in manifest}, target)
        except OSError as error:
            # Another replica on the same root was first: its folder is as good, it has the same digest.
            if not await asyncio.to_thread(target.is_dir):
                raise Unavailable(f"the files of {digest} cannot be written: {error}") from error

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
