"""Zip uploads, read by our own rules because `zipfile` accepts far too much.

Refused with a clear error before anything is written: absolute and climbing paths, links,
names that collide after Unicode and case folding, overlapped entries (15 KB that read as a
gigabyte), lying sizes, and more files or bytes than a package may hold. Nothing is unpacked to
disk; sizes are counted while inflating, never believed.
"""

import stat
import zipfile
import zlib
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO

from services.failures import Invalid, TooLarge
from services.skills.package import FILES_MAX, PACKAGE_BYTES_MAX, Package, from_files, is_litter, path_problem, twins

_CHUNK = 64 * 1024
# Deflate reaches about 1,030 at the very best; text reaches 10.
_RATIO_MAX = 200
# bzip2 and LZMA are inflated by `zipfile` without a bound on what one chunk may become.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Every entry of the directory begins with these four bytes, whatever counts the archive states. The
# bound leaves room for folders, and for office files that are stored as they are and have some of their own.
_ENTRY_SIGNATURE = b"PK\x01\x02"
_ENTRIES_MAX = 8 * FILES_MAX
_LOCAL_HEADER_BYTES = 30
# The record that an archive ends with, before a comment of at most 64 KB.
_END_SIGNATURE = b"PK\x05\x06"
_END_BYTES_MAX = 22 + 0xFFFF

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)


class EntryCount:
    """Counts a zip's entries while it arrives, so that nobody has to send, or keep, the rest of a million."""

    def __init__(self) -> None:
        self._entries = 0
        self._end = b""

    def take(self, chunk: bytes) -> None:
        """The next bytes, in order. Raises `TooLarge`."""
        # A signature may lie across two chunks; three bytes alone are none.
        across = self._end + chunk[:3]
        self._entries += chunk.count(_ENTRY_SIGNATURE) + across.count(_ENTRY_SIGNATURE)
        self._end = chunk[-3:] if len(chunk) >= 3 else across[-3:]
        if self._entries > _ENTRIES_MAX:
            raise TooLarge(f"the zip holds far more than {FILES_MAX} files, which is the most")


def read_zip(data: bytes) -> Package:
    """The package in a zip, at its root or in its single top folder. Raises `Invalid` or `TooLarge`."""
    # What has no end is none, whatever it holds: found at once, where counting looks at every byte.
    if data.rfind(_END_SIGNATURE, max(0, len(data) - _END_BYTES_MAX)) < 0:
        raise Invalid("this is not a readable zip file: it has no end record")
    # Before `zipfile` sees it: a million entries would cost it ten seconds and half a gigabyte.
    EntryCount().take(data)
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise Invalid(f"this is not a readable zip file: {error}") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.orig_filename.endswith("/")]
        _check_sizes(entries, len(data))
        _check_names(entries)
        files: dict[str, bytes] = {}
        total = 0
        for entry in entries:
            try:
                with archive.open(entry) as stream:
                    content = _inflate(stream, PACKAGE_BYTES_MAX - total)
            except _UNREADABLE as error:
                raise Invalid(f"the entry {_name(entry)} cannot be read: {error}") from error
            if len(content) != entry.file_size:
                raise Invalid(f"the entry {_name(entry)} is not of the size it states")
            total += len(content)
            files[entry.filename] = content
    folder, files = _strip_top_folder(files)
    return from_files(files, folder)


def _check_sizes(entries: list[zipfile.ZipInfo], archive_bytes: int) -> None:
    if not entries:
        raise Invalid("the zip file is empty")
    if len(entries) > FILES_MAX:
        raise TooLarge(f"the zip holds {len(entries)} files; {FILES_MAX} is the most")
    announced = sum(entry.file_size for entry in entries)
    if announced > PACKAGE_BYTES_MAX:
        raise TooLarge(f"the zip unpacks to {announced} bytes; {PACKAGE_BYTES_MAX} is the most")
    if announced > archive_bytes * _RATIO_MAX:
        raise TooLarge("the zip unpacks to far more than a real package would")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise Invalid(f"the entry {_name(entry)} overlaps another")
        end = entry.header_offset + _LOCAL_HEADER_BYTES + entry.compress_size
        if end > archive_bytes:
            raise Invalid(f"the entry {_name(entry)} reaches beyond the end of the archive")


def _check_names(entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        # The name as it stands in the archive: `filename` ends at the first NUL.
        if problem := path_problem(entry.orig_filename):
            raise Invalid(f"the path {_name(entry)} is not allowed: {problem}")
        if entry.compress_type not in _METHODS:
            raise Invalid(f"the entry {_name(entry)} is compressed by a method other than deflate")
        mode = entry.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Invalid(f"the entry {_name(entry)} is not a regular file")
    if twin := twins([entry.filename for entry in entries]):
        raise Invalid(f"the path {twin!r} stands twice, as a file and a folder, or differs from another only in form")


def _name(entry: zipfile.ZipInfo) -> str:
    """As shown in an error; names in an archive may be 64 KB long."""
    return repr(entry.orig_filename[:100])


def _inflate(stream: IO[bytes], room: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > room:
            raise TooLarge(f"the zip unpacks to more than {PACKAGE_BYTES_MAX} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _strip_top_folder(files: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """People zip a folder or its content; both mean the same package."""
    kept = {path: content for path, content in files.items() if not is_litter(PurePosixPath(path))}
    tops = {path.split("/", 1)[0] for path in kept}
    if any(path.lower() == "skill.md" for path in kept) or len(tops) != 1:
        return "", kept
    top = tops.pop()
    return top, {path[len(top) + 1 :]: content for path, content in kept.items() if path != top}
