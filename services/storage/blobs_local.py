"""Blobs as files in one folder: `<root>/<first two hex>/<sha256>`.

A blob is written to a temporary file, synced, and renamed: it is whole or it is not there. A
crash may leave a temporary file behind, which the sweep removes once it is old.

A publish relies on a blob that is there by touching it; the sweep takes blobs that are old. A lock
on the folder keeps the two apart, for all replicas of the machine: whoever touches holds it shared,
and the sweep holds it alone from its last look at a blob's age to its removal. So a blob that was
touched is young at that look, and one that is gone is missed by whoever comes to touch it.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from services.failures import Full, NotFound, Unavailable
from services.ports import Swept
from services.storage.folder import write_folder

_LEFTOVER_AGE_S = 24 * 3600
# Removed under one holding of the lock, which every publish waits for.
_REMOVALS = 64
# Syncs of different files overlap in the disk's queue; more threads than this gain nothing on two cores.
_WRITERS = 8
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LocalBlobs:
    """`BlobStore` on a local disk; every method runs its file work in an owned thread pool."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="blobs")
        root.mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        loop = asyncio.get_running_loop()
        items = list(blobs.items())
        shares = [
            loop.run_in_executor(self._threads, self._put_share, share)
            for start in range(_WRITERS)
            if (share := items[start::_WRITERS])
        ]
        if not shares:
            return
        # All are waited for, also when one fails: after the answer nothing of this call is being written.
        await asyncio.wait(shares)
        errors = [error for share in shares if (error := share.exception()) is not None]
        if errors:
            raise errors[0]

    async def has(self, sha256: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._has, sha256)

    async def get(self, sha256: str) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, sha256)

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._materialize, files, target)

    async def remove_leftovers(self) -> int:
        """Removes temporary files of crashed writers; answers how many."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._remove_leftovers, _LEFTOVER_AGE_S)

    async def ping(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, os.listdir, self._root)
        except OSError as error:
            raise Unavailable(f"the folder of the blobs cannot be read: {error.strerror}") from error

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._remove_leftovers, older_than_s)
        unused = await loop.run_in_executor(self._threads, self._old, older_than_s)
        async for sha256 in in_use():
            unused.discard(sha256)
        return await loop.run_in_executor(self._threads, self._remove, sorted(unused), older_than_s)

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def _has(self, sha256: str) -> bool:
        try:
            return not self._touch([sha256])
        except OSError as error:
            raise Unavailable(f"the blob {sha256} cannot be touched: {error}") from error

    def _put_share(self, share: list[tuple[str, bytes]]) -> None:
        folders: set[Path] = set()
        try:
            missing = self._touch(sha256 for sha256, _ in share)
            for sha256, value in share:
                path = self._path(sha256)
                if sha256 in missing:
                    self._write(path, value)
                # Also for a blob that was there: whoever renamed it may not have synced the folder yet.
                folders.add(path.parent)
            for folder in (*folders, self._root):
                _sync(folder)
        except OSError as error:
            if error.errno in _FULL:
                raise Full("the disk of the blobs is full") from error
            raise Unavailable(f"a blob could not be written: {error}") from error

    def _touch(self, names: Iterable[str]) -> set[str]:
        """Makes young what is there; answers what is not."""
        missing = set()
        with self._locked(fcntl.LOCK_SH):
            for sha256 in names:
                try:
                    os.utime(self._path(sha256))
                except FileNotFoundError:
                    missing.add(sha256)
        return missing

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back, as the end of a killed process does

    def _write(self, path: Path, value: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(value)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, sha256: str) -> bytes:
        try:
            value = self._path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"there is no blob {sha256}") from error
        except OSError as error:
            raise Unavailable(f"the blob {sha256} cannot be read: {error}") from error
        if hashlib.sha256(value).hexdigest() != sha256:
            raise Unavailable(f"the blob {sha256} is damaged on disk", code="damaged")
        return value

    def _materialize(self, files: Mapping[str, str], target: Path) -> None:
        write_folder(((path, self._read(sha256)) for path, sha256 in files.items()), target)

    def _old(self, older_than_s: float) -> set[str]:
        """Names of the blobs that nobody has touched for so long."""
        at = _wall_s() - older_than_s
        names: set[str] = set()
        try:
            for folder in self._root.iterdir():
                if not folder.is_dir():
                    continue
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):  # another replica's sweep was faster
                            if not entry.name.endswith(".tmp") and entry.stat().st_mtime < at:
                                names.add(entry.name)
        except OSError as error:
            raise Unavailable(f"the blobs cannot be listed: {error}") from error
        return names

    def _remove(self, names: Collection[str], older_than_s: float) -> Swept:
        removed = size = 0
        waiting = list(names)
        try:
            while waiting:
                some, waiting = waiting[:_REMOVALS], waiting[_REMOVALS:]
                with self._locked(fcntl.LOCK_EX):
                    at = _wall_s() - older_than_s
                    for path in map(self._path, some):
                        found = path.stat() if path.exists() else None
                        if found is not None and found.st_mtime < at:
                            path.unlink()
                            removed, size = removed + 1, size + found.st_size
        except OSError as error:
            raise Unavailable(f"a blob could not be removed: {error}") from error
        return Swept(removed, size)

    def _remove_leftovers(self, older_than_s: float) -> int:
        old = _wall_s() - older_than_s
        removed = 0
        for leftover in self._root.glob("*/*.tmp"):
            try:
                if leftover.stat().st_mtime < old:
                    leftover.unlink()
                    removed += 1
            except FileNotFoundError:
                continue  # its writer, in another replica, has just finished
        return removed


def _wall_s() -> float:
    """As file times are: seconds since 1970 by the wall clock."""
    return time.time_ns() / 1e9


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
