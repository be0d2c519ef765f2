"""Drafts to publish, invocations to log, and what must hold for a store's log whatever happened to it."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import select

from services.models import Change, Draft, FileEntry, Grade, Invocation, ToolSpec, Visibility
from services.storage import schema
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_items import to_row
from services.storage.plan import GENESIS, NAMESPACE, LogEnd, Stream, change_id
from services.storage.sql import SqlStore

# A page of the emulator's own size takes it longer than a call may take.
_PAGE = 50
# What of a row its hash covers, in this order, before its body.
_CHAINED = ("ns", "seq", "prev", "topic", "kind", "dep", "owner", "visibility", "at")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def tool(name: str) -> ToolSpec:
    return ToolSpec(name=name, description=f"The {name} tool.", input_schema={"type": "object"}, command=["true"])


def draft(
    name: str = "alpha",
    text: str = "one",
    *,
    owner: str = "main",
    grade: Grade = "strict",
    tools: Sequence[ToolSpec] = (),
    visibility: Visibility = "public",
    activate: bool = True,
    if_match: str | None = None,
    source_path: str | None = None,
) -> Draft:
    """A package whose only file holds `text`, which therefore decides its digest."""
    return Draft(
        owner=owner,
        name=name,
        digest=f"sha256:{sha256(text)}",
        grade=grade,
        description=f"{name} as of {text}",
        frontmatter={"name": name},
        manifest=(FileEntry("SKILL.md", sha256(text), len(text.encode())),),
        tools=tuple(tools),
        diagnostics=(),
        created_by="test",
        source="folder",
        source_path=source_path,
        visibility=visibility,
        activate=activate,
        if_match=if_match,
    )


def invocation(number: int, skill_id: str = "main/alpha") -> Invocation:
    return Invocation(
        id=f"inv-{number:04d}",
        at=f"2026-11-21T00:00:{number:02d}.000Z",
        caller="ann",
        session="s",
        transport="rest",
        target="run",
        skill_id=skill_id,
        version=1,
        digest="sha256:x",
        ok=number % 2 == 0,
        code="" if number % 2 == 0 else "timeout",
        duration_ms=1.5,
        arguments="{}",
    )


def assert_linked(changes: Sequence[Change], epoch: str) -> None:
    """A log read from its start: dense, each id in its form, each row naming the one before it on its stream."""
    assert [change.seq for change in changes] == list(range(1, len(changes) + 1))
    newest: dict[tuple[str, str, str], str] = {}
    for change in changes:
        assert change.id.startswith(f"{epoch}-{change.seq}-")
        assert len(change.id.rpartition("-")[2]) == 8
        stream = (change.topic, change.owner, change.visibility)
        assert change.prev == newest.get(stream, "")
        newest[stream] = change.id


class Kept(NamedTuple):
    """All that a store keeps of its log and its skills, as rows."""

    rows: list[dict[str, Any]]
    head: LogEnd
    streams: dict[Stream, str]
    skills: list[dict[str, Any]]
    versions: list[tuple[str, int]]


async def assert_chained(store: SqlStore | DynamoStore) -> int:
    """Recomputes the hash of every row of a store from the first one on; answers the head's seq."""
    kept = await (_in_dynamodb(store) if isinstance(store, DynamoStore) else _in_sql(store))
    epoch = (await store.head()).epoch
    chained, newest = GENESIS, {}
    for number, row in enumerate(kept.rows, start=1):
        assert row["seq"] == number
        content = {name: row[name] for name in _CHAINED}
        digest = hashlib.sha256(chained.encode() + msgspec.json.encode(content) + row["body"])
        chained = digest.hexdigest()
        assert row["hash"] == chained, f"row {number} is not chained to the one before it"
        newest[row["topic"], row["owner"], row["visibility"]] = change_id(epoch, number, chained)
    assert kept.head == (len(kept.rows), chained)
    assert kept.streams == newest
    numbers: dict[str, list[int]] = {}
    for skill_id, number in sorted(kept.versions):
        numbers.setdefault(skill_id, []).append(number)
    pruned: dict[str, set[int]] = {}
    for row in kept.rows:
        if row["kind"] == "skill.pruned":
            data = msgspec.json.decode(row["body"])["data"]
            pruned.setdefault(data["id"], set()).update(data["versions"])
    for skill in kept.skills:
        if skill["status"] == "removed":
            assert skill["id"] not in numbers
            continue
        gone = pruned.get(skill["id"], set())
        assert numbers[skill["id"]] == [n for n in range(1, skill["last_version"] + 1) if n not in gone]
        assert skill["seq"] <= len(kept.rows)
        active = skill.get("active_version")
        assert active is None or active <= skill["last_version"]
    return kept.head.seq


async def _in_sql(store: SqlStore) -> Kept:
    versions, changes = schema.versions, schema.changes
    async with store.reading() as connection:
        rows = (await connection.execute(select(changes).order_by(changes.c.seq))).mappings().all()
        head = (await connection.execute(select(schema.change_head))).mappings().one()
        streams = (await connection.execute(select(schema.streams))).mappings().all()
        skills = (await connection.execute(select(schema.skills))).mappings().all()
        numbers = (await connection.execute(select(versions.c.skill_id, versions.c.version))).all()
    return Kept(
        [dict(row) for row in rows],
        LogEnd(head["seq"], head["hash"]),
        {(row["topic"], row["owner"], row["visibility"]): row["change_id"] for row in streams},
        [dict(row) for row in skills],
        [(row.skill_id, row.version) for row in numbers],
    )


async def _in_dynamodb(store: DynamoStore) -> Kept:
    reads = store.reads

    async def scanned(table: str) -> list[dict[str, Any]]:
        pages = reads.dynamodb.pages("scan", TableName=table, ConsistentRead=True, Limit=_PAGE)
        return [to_row(item) async for page in pages for item in page["Items"]]

    rows = [row for row in await scanned(reads.tables.changes) if row["ns"] == NAMESPACE and row["seq"]]
    rows = [{**row, "body": await reads.row_body(row)} for row in sorted(rows, key=lambda row: int(row["seq"]))]
    return Kept(
        rows,
        (await reads.head()).end,
        await reads.streams(),
        [{**row, "id": row["skill_id"]} for row in await scanned(reads.tables.skills)],
        [(row["skill_id"], row["version"]) for row in await scanned(reads.tables.versions) if "digest" in row],
    )
