"""Reads of the DynamoDB store: of base tables, consistent, never of an index.

The end of the log is an item that every write moves in its transaction. So whoever reads that end
first and anything else after it knows: if the end has not moved, what was read is one state.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from services.failures import NotFound, Unavailable
from services.models import Change, Skill, Version
from services.storage.aws import Answer, AwsPlace, Service, together
from services.storage.dynamodb_items import PARTS_MAX, Item, to_item, to_row, unpack
from services.storage.dynamodb_tables import HEAD_KEY, TABLES_VERSION, Tables
from services.storage.plan import NAMESPACE, LogEnd, Stream, read_change

# What DynamoDB takes in one request.
_GET_MAX = 100
_WRITE_MAX = 25
_ROUNDS_MAX = 20
_PAUSE_S = 0.05
_NUMBER_MAX = 2**63 - 1
PARTS_NAMESPACE = f"{NAMESPACE}.parts"


class Head(NamedTuple):
    """The log's end, and the epoch it has now."""

    epoch: str
    end: LogEnd


class Torn(Unavailable):
    """What was read is of two states: a write came in between. Reading again helps."""


class Reads:
    """What the store and its writes read; shares the service, and has nothing to close."""

    def __init__(self, dynamodb: Service, place: AwsPlace) -> None:
        self.dynamodb = dynamodb
        self.tables = Tables.of(place)
        self.skills_prefix = place.skills_prefix

    async def head(self) -> Head:
        """Raises `Unavailable`, also for tables that nobody has prepared."""
        item = await self.get(self.tables.changes, HEAD_KEY)
        if item is None:
            raise Unavailable("the change log has no end: run `skillwire init-storage`")
        if item["schema"] != TABLES_VERSION:
            raise Unavailable(f"the tables have schema {item['schema']}, this version needs {TABLES_VERSION}")
        return Head(item["epoch"], LogEnd(item["end"], item["hash"]))

    async def get(self, table: str, key: Item) -> dict[str, Any] | None:
        answer = await self.dynamodb.call("get_item", TableName=table, Key=key, ConsistentRead=True)
        return to_row(answer["Item"]) if "Item" in answer else None

    async def get_many(self, table: str, keys: Sequence[Item]) -> list[dict[str, Any]]:
        """Those that exist, in no order."""

        async def some(wanted: Sequence[Item]) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            async for answer in self._rounds("batch_get_item", table, {"Keys": wanted, "ConsistentRead": True}):
                found += [to_row(item) for item in answer["Responses"].get(table, [])]
            return found

        slices = [keys[start : start + _GET_MAX] for start in range(0, len(keys), _GET_MAX)]
        return [row for rows in await together(some, slices) for row in rows]

    async def write_many(self, table: str, requests: Sequence[dict[str, Any]]) -> None:
        """Puts and deletes, each whole or nothing, in no order."""

        async def some(wanted: Sequence[dict[str, Any]]) -> None:
            async for _ in self._rounds("batch_write_item", table, wanted):
                pass

        await together(some, [requests[start : start + _WRITE_MAX] for start in range(0, len(requests), _WRITE_MAX)])

    async def _rounds(self, operation: str, table: str, wanted: Any) -> AsyncIterator[Answer]:
        """What of a batch the service left undone, because it is throttled, is asked for again."""
        for attempt in range(_ROUNDS_MAX):
            if attempt:
                await asyncio.sleep(_PAUSE_S * min(attempt, 10))
            answer = await self.dynamodb.call(operation, RequestItems={table: wanted})
            yield answer
            left = answer.get("UnprocessedKeys") or answer.get("UnprocessedItems") or {}
            if table not in left:
                return
            wanted = left[table]
        raise Unavailable("DynamoDB is throttled")

    async def query(self, table: str, condition: str, values: Mapping[str, Any], **more: Any) -> AsyncIterator[Item]:
        async for page in self.dynamodb.pages(
            "query",
            TableName=table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=to_item(values),
            **({} if "IndexName" in more else {"ConsistentRead": True}),
            **more,
        ):
            for item in page["Items"]:
                yield item

    async def skills(self, ids: Collection[str]) -> dict[str, Skill]:
        """Those that exist, with their active versions."""
        rows = await self.get_many(self.tables.skills, [to_item({"skill_id": id_}) for id_ in sorted(ids)])
        return await self.with_active(rows)

    async def with_active(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Skill]:
        """Rows of skills joined with their active versions. Raises `Torn` when one of these
        versions was removed between the two reads."""
        wanted = [(row["skill_id"], row["active_version"]) for row in rows if "active_version" in row]
        versions = await self.versions_of(wanted)
        skills = {}
        for row in rows:
            number = row.get("active_version")
            if number is not None and (row["skill_id"], number) not in versions:
                raise Torn(f"{row['skill_id']} has changed while it was read; try again")
            skills[row["skill_id"]] = Skill(
                id=row["skill_id"],
                owner=row["owner"],
                name=row["name"],
                visibility=row["visibility"],
                status=row["status"],
                seq=row["seq"],
                last_version=row["last_version"],
                active=None if number is None else versions[row["skill_id"], number],
                pinned=tuple(int(pin) for pin in row["pinned"].split(",")) if "pinned" in row else (),
                deleted_version=row.get("deleted_version"),
            )
        return skills

    async def versions_of(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Version]:
        """Those that exist, by (skill, number)."""
        keys = [to_item({"skill_id": id_, "version": number}) for id_, number in wanted]
        rows = await self.get_many(self.tables.versions, keys)
        return {(row["skill_id"], row["version"]): await self.read_version(row) for row in rows}

    async def version(self, skill_id: str, number: int) -> Version:
        """Raises `NotFound`."""
        found = await self.versions_of([(skill_id, number)]) if 0 < number <= _NUMBER_MAX else {}
        if not found:
            raise NotFound(f"{skill_id} has no version {number}")
        return found[skill_id, number]

    async def versions(self, skill_id: str, before: int | None, limit: int | None) -> list[Version]:
        """Newest first, as `MetadataStore.versions`."""
        condition = "skill_id = :id"
        values: dict[str, str | int] = {":id": skill_id}
        if before is not None:
            condition, values = f"{condition} AND version < :before", values | {":before": before}
        size = {} if limit is None else {"Limit": limit}
        found: list[Version] = []
        async for item in self.query(self.tables.versions, condition, values, ScanIndexForward=False, **size):
            found.append(await self.read_version(to_row(item)))
            if len(found) == limit:
                break
        return found

    async def read_version(self, row: Mapping[str, Any]) -> Version:
        first = {"skill_id": f"{row['skill_id']}.parts", "version": row["version"] * PARTS_MAX}
        body = await self._whole(self.tables.versions, "version", first, row)
        return msgspec.json.decode(body, type=Version)

    async def read_rows(self, epoch: str, items: Sequence[Item]) -> list[Change]:
        return [await self.read_row(epoch, to_row(item)) for item in items]

    async def read_row(self, epoch: str, row: Mapping[str, Any]) -> Change:
        return read_change(epoch, LogRow(row, await self.row_body(row)))

    async def row_body(self, row: Mapping[str, Any]) -> bytes:
        first = {"ns": PARTS_NAMESPACE, "seq": row["seq"] * PARTS_MAX}
        return await self._whole(self.tables.changes, "seq", first, row)

    async def _whole(self, table: str, number: str, first: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
        """A body with its further parts, whose keys count on from `first`."""
        keys = [to_item({**first, number: first[number] + part}) for part in range(1, row["parts"])]
        found = {part[number]: part["body"] for part in await self.get_many(table, keys)}
        if len(found) != len(keys):
            raise Torn("a large body was removed while it was read")
        return unpack([row["body"], *(body for _, body in sorted(found.items()))])

    async def streams(self, owners: Collection[str] | None = None) -> dict[Stream, str]:
        """The newest change of each stream, of these owners or of all."""
        found: dict[Stream, str] = {}
        prefixes = [""] if owners is None else [f"{owner}/" for owner in sorted(owners)]
        for prefix in prefixes:
            condition, values = "pk = :pk", {":pk": "streams"}
            if prefix:
                condition, values = f"{condition} AND begins_with(sk, :owner)", values | {":owner": prefix}
            async for item in self.query(self.tables.state, condition, values):
                row = to_row(item)
                owner, topic, visibility = row["sk"].split("/")
                found[topic, owner, visibility] = row["change_id"]
        return found


class LogRow:
    """An item of the log as `read_change` takes a row of it."""

    def __init__(self, row: Mapping[str, Any], body: bytes) -> None:
        self.__dict__.update(row)
        self.body = body
