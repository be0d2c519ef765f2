"""Schema 3: runs, and documents that all replicas share."""

from sqlalchemy import Column, Connection, Index, LargeBinary, MetaData, Table

from services.storage.schema import Words

_added = MetaData()
Table(
    "runs",
    _added,
    Column("id", Words(), primary_key=True),
    Column("principal", Words(), nullable=False),
    Column("status", Words(), nullable=False),
    Column("expires_at", Words(), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("runs_by_principal", "principal", "id"),
    Index("runs_by_status", "status"),
    Index("runs_by_expiry", "expires_at"),
)
Table(
    "documents",
    _added,
    Column("name", Words(), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)


def apply(connection: Connection) -> None:
    _added.create_all(connection, checkfirst=False)
