"""Removing from the DynamoDB store: versions, whole skills, old change rows, and which blobs are still named.

What belongs to a skill can be more than one transaction takes. The change is committed with as much of
it as fits, the rest goes after; what a crash leaves in between is hidden by the change and names blobs
that are kept for nothing.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from services.models import Published, Skill, Version
from services.storage import upkeep
from services.storage.dynamodb_appender import Skills, Write, kept
from services.storage.dynamodb_items import PARTS_MAX, Item, to_item, to_row
from services.storage.dynamodb_reads import PARTS_NAMESPACE, Reads
from services.storage.plan import NAMESPACE, WritePlan

if TYPE_CHECKING:
    from services.storage.dynamodb import DynamoStore

# Of the 100 items of a transaction; the others are the change itself.
_DELETES_MAX = 80


async def remove(store: "DynamoStore", skill_id: str, by: str) -> Published:
    reads, owner = store.reads, skill_id.partition("/")[0]
    left: list[tuple[str, Item]] = []

    async def rule(plan: WritePlan, skills: Skills) -> Published:
        skill = kept(skills, skill_id)
        version = await reads.version(skill_id, upkeep.version_to_name(skill))
        going = await _belongings(reads, skill_id)
        write.also[:] = [_delete(table, key) for table, key in going[:_DELETES_MAX]]
        left[:] = going[_DELETES_MAX:]
        return upkeep.remove(plan, skill, version, by)

    write = Write(frozenset({owner}), frozenset({skill_id}), rule, alone=True)
    published = await store.commit(write)
    for table in {table for table, _ in left}:
        await reads.write_many(table, [{"DeleteRequest": {"Key": key}} for name, key in left if name == table])
    return published


async def remove_version(store: "DynamoStore", skill_id: str, number: int, by: str) -> Published:
    reads, owner = store.reads, skill_id.partition("/")[0]

    async def rule(plan: WritePlan, skills: Skills) -> Published:
        published = upkeep.remove_version(plan, kept(skills, skill_id), await reads.version(skill_id, number), by)
        (row,) = [row for row in await _versions(reads, skill_id) if row["version"] == number]
        keys = [_version_key(skill_id, number), *_part_keys(skill_id, row)]
        write.also[:] = [_delete(reads.tables.versions, key) for key in keys]
        return published

    write = Write(frozenset({owner}), frozenset({skill_id}), rule, alone=True)
    return await store.commit(write)


async def prune(store: "DynamoStore", skill_id: str, keep: int) -> int:
    """In several changes where one would be too large."""
    reads, owner = store.reads, skill_id.partition("/")[0]
    parts: list[Item] = []

    async def rule(plan: WritePlan, skills: Skills) -> int:
        skill = kept(skills, skill_id)
        rows = await _versions(reads, skill_id)
        newest = await reads.version(skill_id, rows[0]["version"])
        gone = _prune_some(plan, skill, [row["version"] for row in rows], newest, keep)
        going = {number for _, number in plan.pruned}
        write.also[:] = [_delete(reads.tables.versions, _version_key(skill_id, number)) for number in sorted(going)]
        parts[:] = [key for row in rows if row["version"] in going for key in _part_keys(skill_id, row)]
        return gone

    write = Write(frozenset({owner}), frozenset({skill_id}), rule, alone=True)
    count = await store.commit(write)
    await reads.write_many(reads.tables.versions, [{"DeleteRequest": {"Key": key}} for key in parts])
    return count if count < _DELETES_MAX else count + await prune(store, skill_id, keep)


def _prune_some(plan: WritePlan, skill: Skill, numbers: list[int], newest: Version, keep: int) -> int:
    """As `upkeep.prune`, but at most `_DELETES_MAX` of them, the oldest."""
    tried = plan.fork()
    upkeep.prune(tried, skill, numbers, newest, keep)
    going = {number for _, number in tried.pruned[-_DELETES_MAX:]}
    return upkeep.prune(plan, skill, [numbers[0], *(number for number in numbers if number in going)], newest, 1)


async def trim(reads: Reads, keep_rows: int, batch: int, sealed: int) -> int:
    head = await reads.head()
    last = min(head.end.seq - max(1, keep_rows), sealed)
    table = reads.tables.changes
    going: list[Item] = []
    condition, values = "ns = :ns AND seq BETWEEN :first AND :last", {":ns": NAMESPACE, ":first": 1, ":last": last}
    if last >= 1:
        async for item in reads.query(table, condition, values, Limit=batch, ProjectionExpression="seq, parts"):
            going.append(item)
            if len(going) == batch:
                break
    keys = []
    for row in map(to_row, going):
        # The parts first: a row that is left without them could not be read.
        keys.append(to_item({"ns": NAMESPACE, "seq": row["seq"]}))
        first = row["seq"] * PARTS_MAX
        keys += [to_item({"ns": PARTS_NAMESPACE, "seq": first + part}) for part in range(1, row["parts"])]
    await reads.write_many(table, [{"DeleteRequest": {"Key": key}} for key in keys])
    return len(going)


async def blobs_in_use(reads: Reads) -> AsyncIterator[str]:
    async for page in reads.dynamodb.pages("scan", TableName=reads.tables.versions, ConsistentRead=True):
        for row in map(to_row, page["Items"]):
            if "digest" in row:  # the others are parts of large ones
                for entry in (await reads.read_version(row)).manifest:
                    yield entry.sha256


async def _belongings(reads: Reads, skill_id: str) -> list[tuple[str, Item]]:
    """(table, key) of all that is kept of a skill beside its own item."""
    found: list[tuple[str, Item]] = []
    for row in await _versions(reads, skill_id):
        found.append((reads.tables.versions, _version_key(skill_id, row["version"])))
        found += [(reads.tables.versions, key) for key in _part_keys(skill_id, row)]
    state = reads.tables.state
    async for item in reads.query(state, "pk = :pk", {":pk": f"usage#{skill_id}"}):
        found.append((state, {"pk": item["pk"], "sk": item["sk"]}))
    # Which folders know it is written nowhere; a removal is rare, so it may look through all.
    pages = reads.dynamodb.pages(
        "scan",
        TableName=state,
        ConsistentRead=True,
        FilterExpression="begins_with(pk, :ledger) AND skill_id = :skill",
        ExpressionAttributeValues=to_item({":ledger": "ledger#", ":skill": skill_id}),
    )
    async for page in pages:
        found += [(state, {"pk": item["pk"], "sk": item["sk"]}) for item in page["Items"]]
    return found


async def _versions(reads: Reads, skill_id: str) -> list[dict[str, Any]]:
    """Number and parts of each, newest first."""
    found = reads.query(
        reads.tables.versions,
        "skill_id = :id",
        {":id": skill_id},
        ScanIndexForward=False,
        ProjectionExpression="version, parts",
    )
    return [to_row(item) async for item in found]


def _version_key(skill_id: str, number: int) -> Item:
    return to_item({"skill_id": skill_id, "version": number})


def _part_keys(skill_id: str, row: dict[str, Any]) -> list[Item]:
    first = row["version"] * PARTS_MAX
    return [_version_key(f"{skill_id}.parts", first + part) for part in range(1, row["parts"])]


def _delete(table: str, key: Item) -> dict[str, Any]:
    return {"Delete": {"TableName": table, "Key": key}}
