"""Blobs as files in one folder: `<root>/<first two hex>/<sha256>`.

A blob is written to a temporary file, synced, and renamed: it is whole or it is not there. A
crash may leave a temporary file behind, which start-up removes once it is a day old.
"""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.failures import NotFound, Unavailable
from services.storage.folder import write_folder

_LEFTOVER_AGE_S = 24 * 3600
# Syncs of different files overlap in the disk's queue; more threads than this gain nothing on two cores.
_WRITERS = 8


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
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._touch, sha256)

    async def get(self, sha256: str) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, sha256)

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._materialize, files, target)

    async def remove_leftovers(self) -> int:
        """Removes temporary files of crashed writers; answers how many."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._remove_leftovers)

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def _touch(self, sha256: str) -> bool:
        """False when it is not there."""
        try:
            os.utime(self._path(sha256))  # kept alive: the sweeper goes by age
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"the blob {sha256} cannot be touched: {error}") from error
        return True

    def _put_share(self, share: list[tuple[str, bytes]]) -> None:
        folders: set[Path] = set()
        try:
            for sha256, value in share:
                path = self._path(sha256)
                try:
                    os.utime(path)  # kept alive: the sweeper goes by age
                except FileNotFoundError:
                    self._write(path, value)
                # Also for a blob that was there: whoever renamed it may not have synced the folder yet.
                folders.add(path.parent)
            for folder in (*folders, self._root):
                _sync(folder)
        except OSError as error:
            raise Unavailable(f"a blob could not be written: {error}") from error

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

    def _remove_leftovers(self) -> int:
        # Wall clock on purpose: file times are wall-clock times.
        old = time.time_ns() / 1e9 - _LEFTOVER_AGE_S
        removed = 0
        for leftover in self._root.glob("*/*.tmp"):
            try:
                if leftover.stat().st_mtime < old:
                    leftover.unlink()
                    removed += 1
            except FileNotFoundError:
                continue  # its writer, in another replica, has just finished
        return removed


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
