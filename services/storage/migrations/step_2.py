"""Schema 2: usage by version, pinned versions, the version that was active when a skill was deleted."""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, text

from services.storage.schema import Words

_added = MetaData()
Table(
    "usage",
    _added,
    Column("skill_id", Words(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("last_at", Words(), nullable=False),
)
_COUNT_WHAT_IS_KEPT = """
    INSERT INTO usage (skill_id, version, calls, failures, last_at)
    SELECT skill_id, version, count(*), sum(CASE WHEN ok THEN 0 ELSE 1 END), max(at)
      FROM invocations GROUP BY skill_id, version
"""
_DELETION = text("SELECT body FROM changes WHERE dep = :dep AND kind = 'skill.deleted' ORDER BY seq DESC LIMIT 1")
_VERSIONS = text("SELECT body FROM versions WHERE skill_id = :id ORDER BY version DESC")


def apply(connection: Connection) -> None:
    words = Words().compile(dialect=connection.dialect)
    connection.execute(text(f"ALTER TABLE skills ADD COLUMN pinned {words}"))
    connection.execute(text("ALTER TABLE skills ADD COLUMN deleted_version BIGINT"))
    connection.execute(text("CREATE INDEX invocations_by_at ON invocations (at)"))
    _added.create_all(connection, checkfirst=False)
    connection.execute(text(_COUNT_WHAT_IS_KEPT))
    deleted = connection.execute(text("SELECT id FROM skills WHERE status = 'inactive'")).scalars().all()
    for skill_id in deleted:
        version = _deleted_version(connection, skill_id)
        noted = text("UPDATE skills SET deleted_version = :version WHERE id = :id")
        connection.execute(noted, {"version": version, "id": skill_id})


def _deleted_version(connection: Connection, skill_id: str) -> int | None:
    """As the log tells it; where the log does not reach back, the newest version that can be served."""
    body = connection.execute(_DELETION, {"dep": f"skill:{skill_id}"}).scalar()
    if body is not None:
        return int(_json(body)["data"]["version"])
    found = map(_json, connection.execute(_VERSIONS, {"id": skill_id}).scalars())
    return next((int(version["version"]) for version in found if version["grade"] != "quarantined"), None)


_json: Callable[[bytes], Any] = msgspec.json.decode
