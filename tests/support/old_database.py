"""A database as the version before made it: of schema 1, from the dumps in `tests/golden`."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.postgres import PostgresServer

_GOLDEN = Path(__file__).parents[1] / "golden"


def make_old(url: str, server: PostgresServer | None) -> str:
    """Fills the empty database, which is on `server` unless it is SQLite, and answers its URL."""
    if server is None:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.executescript((_GOLDEN / "schema-1-sqlite.sql").read_text())
    else:
        database = url.partition("@/")[2].partition("?")[0]
        server.execute((_GOLDEN / "schema-1-postgres.sql").read_text(), database)
    return url
