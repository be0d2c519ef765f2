"""The invocation log and the counters of use on DynamoDB.

A record and what it adds to the counters are one transaction, so a batch that is given again after
a lost answer is neither kept nor counted twice. Records go by TTL; DynamoDB removes them within days
of that, so readers leave out what is past it.
"""

import asyncio
import random
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from heapq import nlargest, nsmallest
from typing import Any

import msgspec

from services.failures import Unavailable
from services.models import Invocation, Usage
from services.ports import InvocationQuery
from services.storage.aws import Refusal, together
from services.storage.dynamodb_items import Item, to_item, to_row
from services.storage.dynamodb_reads import Reads
from services.storage.dynamodb_tables import TIME_INDEX, TIME_SHARDS

# In one transaction, with two counters for each skill and version that was used: 100 items are the limit.
_BATCH_MAX = 30
_TRIES_MAX = 20
_PAUSE_S = 0.02
_DAY_S = 24 * 3600


class Invocations:
    """The part of `DynamoStore` for what was called; shares its reads, and has nothing to close."""

    def __init__(self, reads: Reads, days: float) -> None:
        self._reads = reads
        self._days = days
        # Of this replica's batches one at a time: they add to the same counters, and would only be in each other's way.
        self._writer = asyncio.Lock()

    async def record(self, invocations: Sequence[Invocation]) -> None:
        unique = list({invocation.id: invocation for invocation in invocations}.values())
        async with self._writer:
            for start in range(0, len(unique), _BATCH_MAX):
                await self._record(unique[start : start + _BATCH_MAX])

    async def _record(self, batch: Sequence[Invocation]) -> None:
        """One transaction; what it trips over (recorded already, no such skill any more) is left out of the next."""
        tripped: set[str] = set()
        for attempt in range(_TRIES_MAX):
            left = [invocation for invocation in batch if invocation.id not in tripped]
            if not left:
                return
            skills = sorted({invocation.skill_id for invocation in left} - tripped)
            await self._note_times(left)
            items = [self._put(invocation) for invocation in left]
            items += [self._skill_count(skill_id, left) for skill_id in skills]
            items += self._usage_counts(left)
            try:
                await self._reads.dynamodb.call("transact_write_items", TransactItems=items)
            except Refusal as refusal:
                if refusal.code != "TransactionCanceledException":
                    raise
                reasons = [reason.get("Code") for reason in refusal.answer.get("CancellationReasons", [])]
                names = [*(invocation.id for invocation in left), *skills]
                tripped.update(
                    name for name, reason in zip(names, reasons, strict=False) if reason == "ConditionalCheckFailed"
                )
                if reasons and "ConditionalCheckFailed" not in reasons:  # another replica counts the same
                    await asyncio.sleep(random.uniform(0, _PAUSE_S * (attempt + 1)))
            else:
                return
        raise Unavailable("other replicas count the same skills; try again")

    def _put(self, invocation: Invocation) -> dict[str, Any]:
        row = msgspec.structs.asdict(invocation)
        item = to_item({
            **row,
            "invoked_at": f"{invocation.at}#{invocation.id}",
            "shard": _shard(invocation.id),
            # The names that whoever reads the table by itself knows.
            "session_id": invocation.session,
            "method": "tools/call",
            "status": "success" if invocation.ok else "error",
            "error_message": invocation.code or None,
            "request_params": invocation.arguments,
            "expires_at": _now_s() + int(self._days * _DAY_S),
        })  # fmt: skip
        del item["session"], item["arguments"]
        condition = "attribute_not_exists(skill_id)"
        return {"Put": {"TableName": self._reads.tables.invocations, "Item": item, "ConditionExpression": condition}}

    def _skill_count(self, skill_id: str, batch: Sequence[Invocation]) -> dict[str, Any]:
        """What stands at the skill, for whoever looks there; one that does not exist is not made by it."""
        used = [invocation for invocation in batch if invocation.skill_id == skill_id]
        return _adding(
            self._reads.tables.skills,
            to_item({"skill_id": skill_id}),
            {"invocation_count": len(used)},
            condition="attribute_exists(seq)",
        )

    def _usage_counts(self, batch: Sequence[Invocation]) -> list[dict[str, Any]]:
        used: dict[tuple[str, int], list[Invocation]] = {}
        for invocation in batch:
            used.setdefault((invocation.skill_id, invocation.version), []).append(invocation)
        return [
            _adding(
                self._reads.tables.state,
                to_item({"pk": f"usage#{skill_id}", "sk": _usage_key(version)}),
                {"calls": len(some), "failures": sum(not invocation.ok for invocation in some)},
            )
            for (skill_id, version), some in used.items()
        ]

    async def _note_times(self, batch: Sequence[Invocation]) -> None:
        """The times of the last calls. Before the transaction, which could not keep the later of two:
        doing it again changes nothing, and whoever is interrupted is given the batch again."""
        last: dict[tuple[str, str, str], str] = {}
        for invocation in batch:
            skill = ("", invocation.skill_id, "last_invoked_at")
            version = (f"usage#{invocation.skill_id}", _usage_key(invocation.version), "last_at")
            for place in (skill, version):
                last[place] = max(last.get(place, ""), invocation.at)
        await together(self._note_time, list(last.items()))

    async def _note_time(self, noted: tuple[tuple[str, str, str], str]) -> None:
        (partition, key, name), at = noted
        table, item = self._reads.tables.state, {"pk": partition, "sk": key}
        condition = f"attribute_not_exists({name}) OR {name} < :at"
        if not partition:
            table, item = self._reads.tables.skills, {"skill_id": key}
            condition = f"attribute_exists(seq) AND ({condition})"
        try:
            await self._reads.dynamodb.call(
                "update_item",
                TableName=table,
                Key=to_item(item),
                UpdateExpression=f"SET {name} = :at",
                ConditionExpression=condition,
                ExpressionAttributeValues=to_item({":at": at}),
            )
        except Refusal as refusal:
            if refusal.code != "ConditionalCheckFailedException":
                raise

    async def usage(self, skill_id: str) -> list[Usage]:
        found = self._reads.query(
            self._reads.tables.state, "pk = :pk", {":pk": f"usage#{skill_id}"}, ScanIndexForward=False
        )
        rows = [to_row(item) async for item in found]
        return [
            Usage(skill_id, int(row["sk"]), row["calls"], row["failures"], row["last_at"])
            for row in rows
            if "calls" in row  # else its first batch is on its way
        ]

    async def expire(self, before: str, batch: int) -> int:
        shards = await together(partial(self._oldest, before, batch), range(TIME_SHARDS), at_once=TIME_SHARDS)
        oldest = nsmallest(batch, (key for some in shards for key in some))
        keys = [to_item({"skill_id": skill_id, "invoked_at": at}) for at, skill_id in oldest]
        await self._reads.write_many(self._reads.tables.invocations, [{"DeleteRequest": {"Key": key}} for key in keys])
        return len(keys)

    async def _oldest(self, before: str, batch: int, shard: int) -> list[tuple[str, str]]:
        """(time and id, skill) of those of one shard that are older."""
        found: list[tuple[str, str]] = []
        async for item in self._reads.query(
            self._reads.tables.invocations, "shard = :shard", {":shard": str(shard)}, IndexName=TIME_INDEX
        ):
            at = item["invoked_at"]["S"]
            if at >= before or len(found) == batch:
                break
            found.append((at, item["skill_id"]["S"]))
        return found

    async def find(self, query: InvocationQuery) -> list[Invocation]:
        """Newest first: of a skill from the table itself, of all from the index, which may be moments behind."""
        if query.limit < 1:
            return []
        if query.skill_id is not None:
            found = await self._of_skill(query, query.skill_id)
        else:
            shards = await together(partial(self._of_shard, query), range(TIME_SHARDS), at_once=TIME_SHARDS)
            found = [invocation for some in shards for invocation in some]
        return nlargest(query.limit, found, key=lambda invocation: invocation.id)

    async def _of_skill(self, query: InvocationQuery, skill_id: str) -> list[Invocation]:
        last = "~"
        if query.before is not None and (place := await self._place(query.before)):
            last = place
        return await self._collect(
            query,
            "skill_id = :skill AND invoked_at BETWEEN :first AND :last",
            {":skill": skill_id, ":first": query.since or "0", ":last": last},
        )

    async def _of_shard(self, query: InvocationQuery, shard: int) -> list[Invocation]:
        return await self._collect(
            query,
            "shard = :shard AND id < :before",
            {":shard": str(shard), ":before": query.before or "~"},
            IndexName=TIME_INDEX,
        )

    async def _collect(
        self, query: InvocationQuery, condition: str, values: dict[str, Any], **more: Any
    ) -> list[Invocation]:
        found: list[Invocation] = []
        now_s = _now_s()
        # Old ones have to be read past when the filter is narrow: bounded by the table's days.
        async for item in self._reads.query(
            self._reads.tables.invocations, condition, values, ScanIndexForward=False, **more
        ):
            row = to_row(item)
            if row["expires_at"] > now_s and _matches(query, row):
                found.append(_invocation(row))
                if len(found) == query.limit:
                    break
        return found

    async def _place(self, invocation_id: str) -> str | None:
        """Where an invocation stands in its skill's part of the table."""
        values = {":shard": _shard(invocation_id), ":id": invocation_id}
        condition = "shard = :shard AND id = :id"
        async for item in self._reads.query(self._reads.tables.invocations, condition, values, IndexName=TIME_INDEX):
            return str(item["invoked_at"]["S"])
        return None


def _usage_key(version: int) -> str:
    return f"{version:019d}"


def _adding(table: str, key: Item, counts: dict[str, int], *, condition: str = "") -> dict[str, Any]:
    values = to_item({f":{name}": value for name, value in counts.items()})
    add = ", ".join(f"{name} :{name}" for name in counts)
    update = {
        "TableName": table,
        "Key": key,
        "UpdateExpression": f"ADD {add}",
        "ExpressionAttributeValues": values,
    }
    return {"Update": update | ({"ConditionExpression": condition} if condition else {})}


def _matches(query: InvocationQuery, row: Mapping[str, Any]) -> bool:
    return (
        (query.before is None or row["id"] < query.before)
        and (query.since is None or row["at"] >= query.since)
        and (query.until is None or row["at"] < query.until)
        and query.caller in (None, row["caller"])
        and query.ok in (None, row["ok"])
    )


def _invocation(row: Mapping[str, Any]) -> Invocation:
    kept = {**row, "session": row["session_id"], "arguments": row["request_params"]}
    return Invocation(**{name: kept[name] for name in Invocation.__struct_fields__})


def _shard(invocation_id: str) -> str:
    return str(zlib.crc32(invocation_id.encode(errors="replace")) % TIME_SHARDS)


def _now_s() -> int:
    # Wall clock on purpose: TTL is what DynamoDB compares with its own.
    return time.time_ns() // 1_000_000_000
