"""The audit log in the SQL store's database."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.exc import IntegrityError

from services.audit.nouns import AuditHead, AuditQuery, AuditRecord
from services.failures import Conflict
from services.storage import schema
from services.storage.plan import GENESIS
from services.storage.sql import SqlStore

_TABLE = schema.audit
_HEAD = select(_TABLE.c.seq, _TABLE.c.hash, _TABLE.c.sealed_at, _TABLE.c.key_id).order_by(_TABLE.c.seq.desc()).limit(1)


class SqlAudit:
    """`AuditStore` over an open store, whose connections and write lock it shares; nothing to close."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def audit_head(self) -> AuditHead | None:
        async with self._store.reading() as connection:
            row = (await connection.execute(_HEAD)).one_or_none()
        return None if row is None else AuditHead(row.seq, row.hash, row.sealed_at, row.key_id)

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        if not records:
            return
        head = await self.audit_head()
        if records[0].prev != (head.hash if head else GENESIS):
            raise Conflict("the audit log has another head", head=head.seq if head else 0)
        try:
            async with self._store.writing() as connection:
                # All or none on both databases. Whoever came in between has a record with the same `prev`,
                # which is unique.
                await connection.execute(_TABLE.insert(), [msgspec.structs.asdict(record) for record in records])
        except IntegrityError as error:
            raise Conflict("another replica has sealed these changes") from error

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        async with self._store.reading() as connection:
            return [_read(row) for row in await connection.execute(_asked(query))]


def _asked(query: AuditQuery) -> Select[tuple[object, ...]]:
    column = _TABLE.c
    found = select(_TABLE).limit(query.limit)
    found = found.order_by(column.seq.desc() if query.after is None else column.seq)
    if query.after is not None:
        found = found.where(column.seq > query.after)
    if query.before is not None:
        found = found.where(column.seq < query.before)
    if query.subjects:
        found = found.where(column.subject.in_(query.subjects))
    for name, wanted in (("by", query.by), ("kind", query.kind), ("topic", query.topic)):
        if wanted is not None:
            found = found.where(column[name] == wanted)
    if query.since is not None:
        found = found.where(column.at >= query.since)
    if query.until is not None:
        found = found.where(column.at < query.until)
    return found


def _read(row: Row[tuple[object, ...]]) -> AuditRecord:
    return AuditRecord(**row._mapping)
