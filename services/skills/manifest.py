"""The manifest of a package and its digest.

The digest is the one of the Agent Skills Discovery text: for every file, in byte order of its
path, the line `path NUL hex-sha256 LF`; all lines hashed with SHA-256. It names the content
alone: the same files give the same digest on every machine and at every time.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from services.models import FileEntry

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def build_manifest(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """Entries in byte order of the path."""
    return tuple(
        FileEntry(path, hashlib.sha256(files[path]).hexdigest(), len(files[path]))
        for path in sorted(files, key=lambda path: path.encode())
    )


def digest_of(manifest: Iterable[FileEntry]) -> str:
    """`sha256:<64 hex>`; the manifest must be in byte order of its paths."""
    lines = hashlib.sha256()
    for entry in manifest:
        lines.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return f"sha256:{lines.hexdigest()}"
