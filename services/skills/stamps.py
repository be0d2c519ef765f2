"""What the files of a watched folder looked like when they were last read, kept over a restart.

A start has to know which packages were changed meanwhile. Reading all of them to compare digests
takes a second for 400 packages; asking for the state of their files takes a twentieth of that.

A *stamp* is a hash over the path, kind, size, inode and times of every file of a package, among
them the time of its inode's last change, which no program can set. It is taken before the files
are read: what changes in between has another one. A file changed within the clock's last tick
before that may change once more with the same time, so what is younger than `SETTLED_S` is not
kept and will be read again. Nor is anything kept from another version of the code that judges
packages, which may judge otherwise.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from services.skills.package import walk

# Far above the tick of any local file system, that of FAT among them.
SETTLED_S = 3.0

log = structlog.get_logger(__name__)


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """`digest` is that of the package that was read with this look of its files."""

    look: bytes
    digest: str


class _Kept(msgspec.Struct, frozen=True):
    judge: str
    source: str
    stamps: dict[str, Stamp]


class Stamps:
    """The file at `path`; replicas of one data folder overwrite each other's. Never raises for it."""

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._source = source
        self._written: Mapping[str, Stamp] = {}

    def read(self) -> Mapping[str, Stamp]:
        """By path below the root; empty where nothing was kept that can be trusted."""
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            log.warning("what is known of the folder's files cannot be read", path=str(self._path), error=str(error))
            return {}
        if kept.judge != _judge() or kept.source != self._source:
            return {}
        self._written = kept.stamps
        return kept.stamps

    def write(self, stamps: Mapping[str, Stamp]) -> None:
        if stamps == self._written:
            return
        fresh = self._path.with_suffix(f".{os.getpid()}.tmp")  # another replica may be writing, too
        try:
            fresh.write_bytes(msgspec.msgpack.encode(_Kept(_judge(), self._source, dict(stamps))))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("what is known of the folder's files cannot be kept", path=str(self._path), error=str(error))
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        else:
            self._written = stamps


def look_at(root: Path) -> bytes | None:
    """The look of the package at `root` now; None while something of it is too young to tell, or is gone."""
    hashed = hashlib.blake2b(digest_size=16)
    settled_ns = time.time_ns() - int(SETTLED_S * 1e9)
    try:
        for folder, subfolders, names in walk(root, onerror=_raise):
            for name in (".", *subfolders, *names):
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118  # thousands of Path objects a start
                if status.st_ctime_ns > settled_ns:
                    return None
                fields = (folder, name, status.st_mode, status.st_size, status.st_ino, status.st_mtime_ns)
                hashed.update(repr((*fields, status.st_ctime_ns)).encode(errors="surrogateescape"))
    except OSError:
        return None
    return hashed.digest()


def _raise(error: OSError) -> None:
    raise error


def _judge() -> str:
    """Names the code that judges packages, as it is installed."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return " ".join(f"{module.name}:{module.stat().st_mtime_ns}" for module in modules)
