"""The tables of the SQL store, the same on every dialect.

JSON stands in LargeBinary columns: it is written and read whole, as bytes, by msgspec; the
database never looks into it.
"""

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

SCHEMA_VERSION = 1

metadata = MetaData()

# One row: the schema's version and the epoch of the change log.
deployment = Table(
    "deployment",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("schema_version", Integer, nullable=False),
    Column("epoch", String(16), nullable=False),
)

# The counter: `seq` and the chained hash of the newest row. Updated last in every write, so
# that the order of commits is the order of `seq`.
change_head = Table(
    "change_head",
    metadata,
    Column("ns", String(64), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("ns", String(64), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("prev", String(64), nullable=False),
    Column("topic", String(32), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("dep", String(160), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("visibility", String(16), nullable=False),
    Column("at", String(32), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# The newest change of every stream, so that each row can name the one before it. Visibility is
# part of a stream: who cannot see private rows would otherwise find a gap where one was.
streams = Table(
    "streams",
    metadata,
    Column("ns", String(64), primary_key=True),
    Column("topic", String(32), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("visibility", String(16), primary_key=True),
    Column("change_id", String(64), nullable=False),
)

skills = Table(
    "skills",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("visibility", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    Column("active_version", Integer),
)

versions = Table(
    "versions",
    metadata,
    Column("skill_id", String(160), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(71), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("source", String(255), primary_key=True),
    Column("path", String(255), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("skill_id", String(160)),
    Column("diagnostics", LargeBinary, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Float, nullable=False),
)

invocations = Table(
    "invocations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("at", String(32), nullable=False),
    Column("caller", String(64), nullable=False),
    Column("session", String(128), nullable=False),
    Column("transport", String(16), nullable=False),
    Column("target", String(160), nullable=False),
    Column("skill_id", String(160), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("ok", Boolean, nullable=False),
    Column("code", String(64), nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("arguments", String, nullable=False),
    Index("invocations_by_skill", "skill_id", "id"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("error_class", String(16), nullable=False),
    Column("tool", String(64), nullable=False),
    Column("skill", String(160), nullable=False),
    Column("pattern", String, nullable=False),
    Column("code", String(64), nullable=False),
    Column("level", String(8), nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_at", String(32), nullable=False),
    Column("last_at", String(32), nullable=False),
    Column("message", String, nullable=False),
    Column("arguments", String, nullable=False),
    Column("guard", String(64), nullable=False),
    Index("incidents_by_last", "last_at", "id"),
)

solutions = Table(
    "solutions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("incident", String(32), nullable=False),
    Column("text", String, nullable=False),
    Column("author", String(64), nullable=False),
    Column("at", String(32), nullable=False),
    Column("tried", Integer, nullable=False),
    Column("worked", Integer, nullable=False),
    Index("solutions_by_incident", "incident"),
)

vectors = Table(
    "vectors",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)
