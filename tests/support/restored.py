"""Backups of a live SQLite file, as an operator makes and restores them."""

import sqlite3
from contextlib import closing
from pathlib import Path


def back_up(database: Path, copy: Path) -> Path:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def restore(database: Path, copy: Path) -> None:
    """What `.restore` of the sqlite3 shell does, while others have the file open."""
    back_up(copy, database)
