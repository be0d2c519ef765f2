"""Schema 4: the audit log."""

from sqlalchemy import BigInteger, Column, Connection, Index, LargeBinary, MetaData, Table

from services.storage.schema import Words

_added = MetaData()
Table(
    "audit",
    _added,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Words(), nullable=False),
    Column("topic", Words(), nullable=False),
    Column("kind", Words(), nullable=False),
    Column("subject", Words(), nullable=False),
    Column("owner", Words(), nullable=False),
    Column("visibility", Words(), nullable=False),
    Column("by", Words(), nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("tag", Words(), nullable=False),
    Column("sealed_at", Words(), nullable=False),
    Column("key_id", Words(), nullable=False),
    Column("prev", Words(), nullable=False),
    Column("hash", Words(), nullable=False),
    Index("audit_by_prev", "prev", unique=True),
    Index("audit_by_subject", "subject", "seq"),
)


def apply(connection: Connection) -> None:
    _added.create_all(connection, checkfirst=False)
