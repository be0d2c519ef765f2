"""Blobs as the folder a sandbox binds."""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_folder(files: Iterable[tuple[str, bytes]], target: Path) -> None:
    """Writes (path, content) as a read-only folder at `target`, whole or not at all. Blocks."""
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        for path, content in files:
            file = staging / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o555)
        staging.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
