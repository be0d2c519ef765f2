"""Zip uploads, read by our own rules because `zipfile` accepts far too much.

Refused with a clear error before anything is written: absolute and climbing paths, links,
names that collide after Unicode and case folding, overlapped entries (15 KB that read as a
gigabyte), lying sizes, and more files or bytes than a package may hold. Nothing is unpacked to
disk; sizes are counted while inflating, never believed.
"""

import stat
import zipfile
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO

from services.failures import Invalid, TooLarge
from services.skills.package import FILES_MAX, PACKAGE_BYTES_MAX, Package, from_files, is_litter, path_problem, twins

_CHUNK = 64 * 1024
# Deflate reaches about 1,030 at the very best; text reaches 10.
_RATIO_MAX = 200


def read_zip(data: bytes) -> Package:
    """The package in a zip, at its root or in its single top folder. Raises `Invalid` or `TooLarge`."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise Invalid(f"this is not a readable zip file: {error}") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check(entries, len(data))
        files: dict[str, bytes] = {}
        total = 0
        for entry in entries:
            try:
                with archive.open(entry) as stream:
                    content = _inflate(stream, PACKAGE_BYTES_MAX - total)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
                raise Invalid(f"the entry {entry.filename!r} cannot be read: {error}") from error
            total += len(content)
            files[entry.filename] = content
    folder, files = _strip_top_folder(files)
    return from_files(files, folder)


def _check(entries: list[zipfile.ZipInfo], archive_bytes: int) -> None:
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
            raise Invalid(f"the entry {entry.filename!r} overlaps another")
        end = entry.header_offset + entry.compress_size
    for entry in entries:
        if problem := path_problem(entry.filename):
            raise Invalid(f"the path {entry.filename!r} is not allowed: {problem}")
        mode = entry.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise Invalid(f"the entry {entry.filename!r} is not a regular file")
    if twin := twins([entry.filename for entry in entries]):
        raise Invalid(f"two entries are called {twin!r} or differ only in case or Unicode form")


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
