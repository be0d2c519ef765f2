"""A version as a zip whose bytes are the same on every replica, run and platform."""

import io
import zipfile
from collections.abc import Iterable

# The first moment a zip can name; a version's own times would be nothing the digest covers.
_STAMP = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_REGULAR_FILE = 0o100644 << 16


def write_zip(name: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """Files as (path, content) under one folder `name`, in byte order of their paths.

    Stored and not deflated: what zlib makes of the same bytes differs from build to build.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, content in sorted(files, key=lambda file: file[0].encode()):
            entry = zipfile.ZipInfo(f"{name}/{path}", _STAMP)
            entry.create_system = _UNIX
            entry.external_attr = _REGULAR_FILE
            archive.writestr(entry, content)
    return buffer.getvalue()
