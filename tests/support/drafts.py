"""Drafts to publish, invocations to log, and what must hold for a store's log whatever happened to it."""

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from services.models import Change, Draft, FileEntry, Grade, Invocation, ToolSpec, Visibility
from services.storage import schema
from services.storage.plan import GENESIS, change_id
from services.storage.sql import SqlStore


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


async def assert_chained(store: SqlStore) -> int:
    """Recomputes the hash of every row of a store from the first one on; answers the head's seq."""
    async with store.reading() as connection:
        rows = (await connection.execute(select(schema.changes).order_by(schema.changes.c.seq))).mappings().all()
        head = (await connection.execute(select(schema.change_head))).mappings().one()
        streams = (await connection.execute(select(schema.streams))).mappings().all()
        skills = (await connection.execute(select(schema.skills))).mappings().all()
        table = schema.versions
        found = await connection.execute(select(table.c.skill_id, table.c.version).order_by(table.c.version))
        versions = found.mappings().all()
    chained, newest = GENESIS, {}
    for number, row in enumerate(rows, start=1):
        assert row["seq"] == number
        content = {name: value for name, value in row.items() if name not in {"hash", "body"}}
        digest = hashlib.sha256(chained.encode() + msgspec.json.encode(content) + row["body"])
        chained = digest.hexdigest()
        assert row["hash"] == chained, f"row {number} is not chained to the one before it"
        newest[row["topic"], row["owner"], row["visibility"]] = change_id(store.epoch, number, chained)
    assert (head["seq"], head["hash"]) == (len(rows), chained)
    assert {(row["topic"], row["owner"], row["visibility"]): row["change_id"] for row in streams} == newest
    numbers: dict[str, list[int]] = {}
    for row in versions:
        numbers.setdefault(row["skill_id"], []).append(row["version"])
    pruned: dict[str, set[int]] = {}
    for row in rows:
        if row["kind"] == "skill.pruned":
            data = msgspec.json.decode(row["body"])["data"]
            pruned.setdefault(data["id"], set()).update(data["versions"])
    for row in skills:
        if row["status"] == "removed":
            assert row["id"] not in numbers
            continue
        gone = pruned.get(row["id"], set())
        assert numbers[row["id"]] == [n for n in range(1, row["last_version"] + 1) if n not in gone]
        assert row["seq"] <= len(rows)
        assert row["active_version"] is None or row["active_version"] <= row["last_version"]
    return int(head["seq"])
