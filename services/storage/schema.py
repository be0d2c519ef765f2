"""The tables of the SQL store, the same on every dialect.

JSON stands in LargeBinary columns: it is written and read whole, as bytes, by msgspec; the
database never looks into it.
"""

from sqlalchemy import BigInteger, Boolean, Column, Dialect, Float, Index, LargeBinary, MetaData, String, Table
from sqlalchemy.types import TypeDecorator, TypeEngine

# A new number needs a step in `migrations/`.
SCHEMA_VERSION = 4


def storable(text: str) -> str:
    """The text with U+FFFD for a NUL, which PostgreSQL refuses, and `?` for half a surrogate pair,
    which no database takes: tools and callers may send either."""
    if text.isascii() and "\0" not in text:  # nearly always, and a tenth of the cost
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


class Words(TypeDecorator[str]):
    """Text of any length, sorted by code point on every database, whatever the language of its machine."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return dialect.type_descriptor(String(collation="C") if dialect.name == "postgresql" else String())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # the base class's
        return None if value is None else storable(value)


metadata = MetaData()

# One row: the schema's version and the epoch of the change log.
deployment = Table(
    "deployment",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("schema_version", BigInteger, nullable=False),
    Column("epoch", Words(), nullable=False),
)

# The counter: `seq` and the chained hash of the newest row. Updated last in every write, so
# that the order of commits is the order of `seq`.
change_head = Table(
    "change_head",
    metadata,
    Column("ns", Words(), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Words(), nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("ns", Words(), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Words(), nullable=False),
    Column("prev", Words(), nullable=False),
    Column("topic", Words(), nullable=False),
    Column("kind", Words(), nullable=False),
    Column("dep", Words(), nullable=False),
    Column("owner", Words(), nullable=False),
    Column("visibility", Words(), nullable=False),
    Column("at", Words(), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# The newest change of every stream, so that each row can name the one before it. Visibility is
# part of a stream: who cannot see private rows would otherwise find a gap where one was.
streams = Table(
    "streams",
    metadata,
    Column("ns", Words(), primary_key=True),
    Column("topic", Words(), primary_key=True),
    Column("owner", Words(), primary_key=True),
    Column("visibility", Words(), primary_key=True),
    Column("change_id", Words(), nullable=False),
)

skills = Table(
    "skills",
    metadata,
    Column("id", Words(), primary_key=True),
    Column("owner", Words(), nullable=False),
    Column("name", Words(), nullable=False),
    Column("visibility", Words(), nullable=False),
    Column("status", Words(), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("last_version", BigInteger, nullable=False),
    Column("active_version", BigInteger),
    # Numbers in ascending order with commas between them, NULL for none.
    Column("pinned", Words()),
    Column("deleted_version", BigInteger),
)

versions = Table(
    "versions",
    metadata,
    Column("skill_id", Words(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", Words(), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("source", Words(), primary_key=True),
    Column("path", Words(), primary_key=True),
    Column("digest", Words(), nullable=False),
    Column("skill_id", Words()),
    Column("diagnostics", LargeBinary, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Words(), primary_key=True),
    Column("holder", Words(), nullable=False),
    Column("until", Float, nullable=False),
)

invocations = Table(
    "invocations",
    metadata,
    Column("id", Words(), primary_key=True),
    Column("at", Words(), nullable=False),
    Column("caller", Words(), nullable=False),
    Column("session", Words(), nullable=False),
    Column("transport", Words(), nullable=False),
    Column("target", Words(), nullable=False),
    Column("skill_id", Words(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("digest", Words(), nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("code", Words(), nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("arguments", Words(), nullable=False),
    Index("invocations_by_skill", "skill_id", "id"),
    Index("invocations_by_at", "at"),
)

# Counted with the rows above and kept when those have gone.
usage = Table(
    "usage",
    metadata,
    Column("skill_id", Words(), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("calls", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("last_at", Words(), nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Words(), primary_key=True),
    Column("error_class", Words(), nullable=False),
    Column("tool", Words(), nullable=False),
    Column("skill", Words(), nullable=False),
    Column("pattern", Words(), nullable=False),
    Column("code", Words(), nullable=False),
    Column("level", Words(), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Words(), nullable=False),
    Column("last_at", Words(), nullable=False),
    Column("message", Words(), nullable=False),
    Column("arguments", Words(), nullable=False),
    Column("guard", Words(), nullable=False),
    Index("incidents_by_last", "last_at", "id"),
)

solutions = Table(
    "solutions",
    metadata,
    Column("id", Words(), primary_key=True),
    Column("incident", Words(), nullable=False),
    Column("text", Words(), nullable=False),
    Column("author", Words(), nullable=False),
    Column("at", Words(), nullable=False),
    Column("tried", BigInteger, nullable=False),
    Column("worked", BigInteger, nullable=False),
    Index("solutions_by_incident", "incident"),
)

# A run stands whole in its body; the columns are what is looked for.
runs = Table(
    "runs",
    metadata,
    Column("id", Words(), primary_key=True),
    Column("principal", Words(), nullable=False),
    Column("status", Words(), nullable=False),
    Column("expires_at", Words(), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("runs_by_principal", "principal", "id"),
    Index("runs_by_status", "status"),
    Index("runs_by_expiry", "expires_at"),
)

# The changes, sealed one by one. `prev` is unique so that two who seal at once cannot fork the chain.
audit = Table(
    "audit",
    metadata,
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

# What all replicas share and one of them works out: JSON by name.
documents = Table(
    "documents",
    metadata,
    Column("name", Words(), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

vectors = Table(
    "vectors",
    metadata,
    Column("model", Words(), primary_key=True),
    Column("key", Words(), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)

# The files of versions, where replicas do not share a disk (`blobs_table.py`); `touched_at` is
# seconds since 1970 by the database's clock.
blobs = Table(
    "blobs",
    metadata,
    Column("sha256", Words(), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("touched_at", Float, nullable=False),
)

# What all replicas must know and nobody else may: see `MetadataStore.secret`.
secrets = Table(
    "secrets",
    metadata,
    Column("name", Words(), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
