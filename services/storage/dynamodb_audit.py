"""The audit log in the tables of the DynamoDB store.

A record is an item of the state table, ten thousand of them to a partition, and one more item names the
newest: a transaction that appends moves it, if it is where the first record says.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from services.audit.nouns import AuditHead, AuditQuery, AuditRecord
from services.failures import Conflict, Unavailable
from services.storage.aws import Refusal
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_items import pack, to_item, to_row, unpack
from services.storage.plan import GENESIS

_BUCKET = 10_000
# Digits of a seq as text: as many as the largest number that JSON's readers keep exactly.
_DIGITS = 16
_HEAD = {"pk": "audit", "sk": "head"}
_LOST = {"ConditionalCheckFailed", "TransactionConflict"}


class DynamoAudit:
    """`AuditStore` over an open store, whose tables it shares; nothing to close."""

    def __init__(self, store: DynamoStore) -> None:
        self._reads = store.reads
        self._table = store.reads.tables.state

    async def audit_head(self) -> AuditHead | None:
        row = await self._reads.get(self._table, to_item(_HEAD))
        return None if row is None else AuditHead(row["seq"], row["hash"], row["sealed_at"], row["key_id"])

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        if not records:
            return
        items = [self._moved(records[0].prev, records[-1])]
        items += [{"Put": {"TableName": self._table, "Item": to_item(_item(record))}} for record in records]
        try:
            await self._reads.dynamodb.call("transact_write_items", idempotent=False, TransactItems=items)
        except Refusal as refusal:
            reasons = {reason.get("Code") for reason in refusal.answer.get("CancellationReasons", [])}
            if refusal.code != "TransactionCanceledException":
                raise
            if reasons & _LOST:
                raise Conflict("another replica has sealed these changes") from refusal
            raise Unavailable(f"DynamoDB did not append: {', '.join(sorted(map(str, reasons)))}") from refusal

    async def audit(self, query: AuditQuery) -> list[AuditRecord]:
        found: list[AuditRecord] = []
        async for record in self._found(query):
            found.append(record)
            if len(found) == query.limit:
                break
        return found

    async def _found(self, query: AuditQuery) -> AsyncIterator[AuditRecord]:
        head = await self.audit_head()
        if head is None:
            return
        is_forward = query.after is not None
        first, last = (query.after or 0) + 1, head.seq if query.before is None else min(head.seq, query.before - 1)
        wanted, more = _filter(query)
        for bucket in _buckets(first, last, is_forward):
            values = {":pk": f"audit#{bucket}", ":first": _key(first), ":last": _key(last), **wanted}
            condition = "pk = :pk AND sk BETWEEN :first AND :last"
            async for item in self._reads.query(self._table, condition, values, ScanIndexForward=is_forward, **more):
                yield _record(to_row(item))

    def _moved(self, prev: str, newest: AuditRecord) -> dict[str, Any]:
        """The head's new place, for which it must be at `prev`, or nowhere yet."""
        put: dict[str, Any] = {"TableName": self._table, "Item": to_item(_HEAD | _head_row(newest))}
        if prev == GENESIS:
            return {"Put": {**put, "ConditionExpression": "attribute_not_exists(pk)"}}
        condition = {"ConditionExpression": "#hash = :prev", "ExpressionAttributeNames": {"#hash": "hash"}}
        return {"Put": {**put, **condition, "ExpressionAttributeValues": to_item({":prev": prev})}}


def _head_row(record: AuditRecord) -> dict[str, Any]:
    return {"seq": record.seq, "hash": record.hash, "sealed_at": record.sealed_at, "key_id": record.key_id}


def _key(seq: int) -> str:
    return f"{seq:0{_DIGITS}d}"


def _buckets(first: int, last: int, is_forward: bool) -> Iterator[int]:
    buckets = range(first // _BUCKET, last // _BUCKET + 1) if first <= last else range(0)
    return iter(buckets if is_forward else reversed(buckets))


def _filter(query: AuditQuery) -> tuple[dict[str, str], dict[str, Any]]:
    """The values of the filter, and the parameters that state it; none without one."""
    tests = [
        ("by", "=", query.by),
        ("kind", "=", query.kind),
        ("topic", "=", query.topic),
        ("at", ">=", query.since),
        ("at", "<", query.until),
    ]
    values = {f":v{number}": value for number, (_, _, value) in enumerate(tests) if value is not None}
    terms = [f"#{name} {sign} :v{number}" for number, (name, sign, value) in enumerate(tests) if value is not None]
    names = {f"#{name}": name for name, _, value in tests if value is not None}
    if query.subjects:
        values |= {f":s{number}": subject for number, subject in enumerate(query.subjects)}
        terms.append(f"#subject IN ({', '.join(f':s{number}' for number in range(len(query.subjects)))})")
        names["#subject"] = "subject"
    return values, {"FilterExpression": " AND ".join(terms), "ExpressionAttributeNames": names} if terms else {}


def _item(record: AuditRecord) -> dict[str, Any]:
    """A change's data is far from what one item takes: a description and names of tools are the largest of it."""
    (data,) = pack(record.data)
    key = {"pk": f"audit#{record.seq // _BUCKET}", "sk": _key(record.seq)}
    return {**key, **msgspec.structs.asdict(record), "data": data}


def _record(row: Mapping[str, Any]) -> AuditRecord:
    members = {name: row[name] for name in AuditRecord.__struct_fields__}
    return AuditRecord(**{**members, "data": unpack([row["data"]])})
