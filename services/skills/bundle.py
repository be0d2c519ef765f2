"""A package as one archive whose bytes are the same on every replica, machine and day.

A digest names the archive, so nothing may differ that is not the package's: the order is that of
the paths, times, owners and modes are fixed, and the gzip stream stores without compressing, since
what compression makes of a file depends on the version of zlib.
"""

import gzip
import io
import tarfile
from collections.abc import Mapping

_MODE = 0o644
_EXECUTABLE = 0o755


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """ustar, without folders or links; what begins with `#!` is executable. Paths are at most 255 bytes
    by the rules of packages, which ustar holds unless one name is longer than 100: then pax headers follow."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=0, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(files, key=str.encode):
            data = files[path]
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            entry.mode = _EXECUTABLE if data.startswith(b"#!") else _MODE
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
