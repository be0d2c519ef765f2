"""The files of skills' versions as folders, for sandboxes to bind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.failures import Unavailable
from services.models import FileEntry
from services.ports import BlobStore


class PackageFolders:
    """`root/<digest in hex>` for every version that was run here, each written once.

    Replicas may share `root`. Folders are kept: a version's files are immutable, and there are
    as many as there are versions that were run.
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
        if found is not None:
            return found
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            if digest not in self._known:
                self._known[digest] = await self._written(digest, manifest)
        self._locks.pop(digest, None)
        return self._known[digest]

    async def _written(self, digest: str, manifest: Sequence[FileEntry]) -> Path:
        target = self._root / digest.removeprefix("sha256:")
        if not await asyncio.to_thread(target.is_dir):
            try:
                await self._blobs.materialize({entry.path: entry.sha256 for entry in manifest}, target)
            except OSError as error:
                # Another replica on the same root was first: its folder is as good, it has the same digest.
                if not await asyncio.to_thread(target.is_dir):
                    raise Unavailable(f"the files of {digest} cannot be written: {error}") from error
        return target
