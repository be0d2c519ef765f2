"""The n-th call to disk or database fails, for n = 1, 2, ... until the operation passes (as SQLite tests itself)."""

import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from services.failures import Conflict, NotFound, Unavailable
from services.models import Draft, FileEntry
from services.storage.blobs_local import LocalBlobs
from services.storage.blobs_table import TableBlobs
from services.storage.sql import SqlStore
from services.storage.sqlite import SqliteDatabase
from tests.support.drafts import assert_chained, draft, invocation, sha256, tool
from tests.support.failing_io import Nth, cutting_proxy, fail_statements, failing_disk

pytestmark = pytest.mark.anyio

CALLS_MAX = 200


class Parts(NamedTuple):
    """What the operation goes through, whose calls `nth` may have fail, and a store that always answers."""

    store: SqlStore
    blobs: LocalBlobs | TableBlobs
    witness: SqlStore
    nth: Nth
    folder: Path | None


Operation = Callable[[Parts, str], Awaitable[object]]


def _draft(name: str, version: int) -> Draft:
    """Two files, of which one is the other versions' too, and a tool, so that two change rows belong together."""
    texts = {"SKILL.md": f"{name} {version}", "scripts/a.py": f"{name}'s script"}
    manifest = tuple(FileEntry(path, sha256(text), len(text)) for path, text in texts.items())
    made = draft(name, texts["SKILL.md"], tools=[tool(f"run{version}")], source_path=name)
    return Draft(**{**{field: getattr(made, field) for field in made.__struct_fields__}, "manifest": manifest})


async def publish(parts: Parts, name: str, version: int = 4) -> None:
    texts = (f"{name} {version}", f"{name}'s script")
    await parts.blobs.put_many({sha256(text): text.encode() for text in texts})
    await parts.store.publish([_draft(name, version)])


async def three_versions(parts: Parts, name: str) -> None:
    for version in (1, 2, 3):
        await publish(parts, name, version)


async def rollback(parts: Parts, name: str) -> None:
    await parts.store.activate(f"main/{name}", 1, "ann")


async def delete(parts: Parts, name: str) -> None:
    await parts.store.deactivate(f"main/{name}", "ann")


async def restore(parts: Parts, name: str) -> None:
    await parts.store.restore(f"main/{name}", "ann")


async def remove(parts: Parts, name: str) -> None:
    await parts.store.remove(f"main/{name}", "ann")


async def pin(parts: Parts, name: str) -> None:
    await parts.store.pin(f"main/{name}", 2, True, "ann")


async def prune(parts: Parts, name: str) -> None:
    await parts.store.prune_versions(f"main/{name}", 1)


async def record(parts: Parts, name: str) -> None:
    number = int(re.sub(r"\D", "", name) or 0)
    await parts.store.record([invocation(10 * number + each, f"main/{name}") for each in range(3)])


async def three_and_deleted(parts: Parts, name: str) -> None:
    await three_versions(parts, name)
    await delete(parts, name)


async def nothing(_parts: Parts, _name: str) -> None:
    """The skill is new."""


OPERATIONS: dict[str, tuple[Operation, Operation]] = {
    "first-publish": (nothing, publish),
    "publish": (three_versions, publish),
    "rollback": (three_versions, rollback),
    "delete": (three_versions, delete),
    "restore": (three_and_deleted, restore),
    "remove": (three_versions, remove),
    "pin": (three_versions, pin),
    "prune": (three_versions, prune),
    "record": (three_versions, record),
}


@asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[Parts]:
    nth, url = Nth(), f"sqlite:///{folder}/store.db"
    async with AsyncExitStack() as stack:
        store = await SqlStore.open(url)
        stack.push_async_callback(store.close)
        witness = await SqlStore.open(url)
        stack.push_async_callback(witness.close)
        blobs = LocalBlobs(folder / "blobs")
        stack.push_async_callback(blobs.close)
        assert isinstance(store.database, SqliteDatabase)
        for engine in store.database.engines:
            fail_statements(engine, nth)
        stack.enter_context(failing_disk(nth))
        yield Parts(store, blobs, witness, nth, folder / "blobs")


@asynccontextmanager
async def on_postgres(url: str, *, lose_answers: bool) -> AsyncIterator[Parts]:
    """Through a proxy that loses a piece of the conversation: a request, or only the answer to it."""
    nth = Nth()
    socket = Path(url.partition("host=")[2]) / ".s.PGSQL.5432"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cut-")))
        proxied = url.replace(str(socket.parent), str(folder))
        await stack.enter_async_context(cutting_proxy(socket, folder / socket.name, nth, lose_answers=lose_answers))
        store = await SqlStore.open(proxied)
        stack.push_async_callback(store.close)
        witness = await SqlStore.open(url)
        stack.push_async_callback(witness.close)
        yield Parts(store, TableBlobs(store), witness, nth, None)


@pytest.fixture(params=["sqlite", "postgres-request", "postgres-answer"])
async def parts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Parts]:
    if request.param == "sqlite":
        opening = on_sqlite(tmp_path)
    else:
        url = request.getfixturevalue("postgres_url")
        opening = on_postgres(url, lose_answers=request.param == "postgres-answer")
    async with opening as parts:
        yield parts


async def state(parts: Parts, name: str, since: int) -> object:
    """All that is kept of a skill, without what differs from one skill to the next; of its changes those after
    `since`."""
    store, skill_id = parts.witness, f"main/{name}"
    skill = {skill.id: skill for skill in (await store.snapshot()).skills}.get(skill_id)
    rows = [row for row in await store.tail(since, 1000) if row.dep.partition(":")[2] == skill_id]
    ledger = (await store.ledger("folder")).get(name)
    return (
        skill and (skill.status, skill.active and skill.active.version, skill.last_version, skill.pinned),
        skill and skill.deleted_version,
        [version.version for version in await store.versions(skill_id)],
        [(each.calls, each.failures) for each in await store.usage(skill_id)],
        [row.kind for row in rows],
        ledger is not None,
    )


async def assert_readable(parts: Parts, name: str) -> None:
    """Every file of every version that is listed is there, and is what its name says."""
    blobs = TableBlobs(parts.witness) if parts.folder is None else parts.blobs
    for version in await parts.witness.versions(f"main/{name}"):
        for entry in version.manifest:
            await blobs.get(entry.sha256)  # which compares


async def assert_whole(parts: Parts) -> None:
    """The log is chained, every listed file is what its name says, and after a sweep nothing else is there."""
    await assert_chained(parts.witness)
    listed = {name async for name in parts.witness.blobs_in_use()}
    blobs = TableBlobs(parts.witness) if parts.folder is None else parts.blobs
    for sha256_ in listed:
        await blobs.get(sha256_)  # which compares
    await blobs.sweep(parts.witness.blobs_in_use, 0)
    if parts.folder is not None:
        assert {path.name for path in parts.folder.glob("*/*")} == listed


@pytest.mark.parametrize("persistent", [False, True], ids=["transient", "persistent"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_done_or_not_whichever_call_fails(parts: Parts, name: str, persistent: bool) -> None:
    prepare, operation = OPERATIONS[name]
    await prepare(parts, "model")
    before = await state(parts, "model", 0)
    await operation(parts, "model")
    after = await state(parts, "model", 0)
    assert before != after
    failures = 0
    for n in range(1, CALLS_MAX):
        skill, since = f"s{n}", (await parts.witness.head()).seq
        await prepare(parts, skill)
        parts.nth.arm(n, persistent=persistent)
        error: Unavailable | None = None
        try:
            await operation(parts, skill)
        except Unavailable as raised:
            error = raised
        failed = parts.nth.heal()

        found = await state(parts, skill, since)
        assert found in ((before, after) if error else (after,)), f"half done after failure {n}"
        await assert_readable(parts, skill)
        # No restart: the very next attempt goes through, or finds that it is done.
        try:
            await operation(parts, skill)
        except (Conflict, NotFound):
            assert found == after
        assert await state(parts, skill, since) == after
        failures += error is not None
        if not failed:
            break
    else:
        raise AssertionError(f"no end after {CALLS_MAX} calls")
    assert failures, "no call failed: nothing was tested"
    await assert_whole(parts)
