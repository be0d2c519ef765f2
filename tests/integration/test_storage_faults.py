"""A database that is locked, damaged, foreign or full: a clear error, and recovery."""

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from services.failures import Full, Unavailable
from services.storage.schema import SCHEMA_VERSION
from services.storage.sql import SqlStore
from services.storage.sqlite import SqliteDatabase
from tests.support.chaos import small_disk
from tests.support.drafts import assert_chained, draft

pytestmark = pytest.mark.anyio

_HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("released", flush=True)
"""


@asynccontextmanager
async def locked_elsewhere(database: Path) -> AsyncIterator[None]:
    """Another process holds the database's write lock for as long as the block lasts."""
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLD_LOCK, database, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    async with asyncio.timeout(5):
        assert await holder.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        async with asyncio.timeout(5):
            await holder.communicate(b"\n")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    yield store
    await store.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2048) as path:
        yield path


async def wait_at_most_ms(store: SqlStore, wait_ms: int) -> None:
    """Shortens the lock wait of the one connection that writes: 5 s is too long for a test."""
    assert isinstance(store.database, SqliteDatabase)
    async with store.database.writes.connect() as connection:
        await connection.exec_driver_sql(f"PRAGMA busy_timeout = {wait_ms}")


async def test_a_write_waits_for_another_process_to_finish_its_own(store: SqlStore, tmp_path: Path) -> None:
    async with locked_elsewhere(tmp_path / "store.db"):
        writing = asyncio.create_task(store.publish([draft()]))
        assert await store.tail(0, 10) == [], "reads do not wait for writers"
        assert not writing.done()
    async with asyncio.timeout(5):
        assert (await writing)[0].version == 1


async def test_a_database_locked_for_too_long_is_unavailable_and_works_again_after(
    store: SqlStore, tmp_path: Path
) -> None:
    await store.publish([draft(text="one")])
    await wait_at_most_ms(store, 100)
    async with locked_elsewhere(tmp_path / "store.db"):
        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.publish([draft(text="two")])
        with pytest.raises(Unavailable):
            await store.acquire_lease("scan", "a", 60)
        assert (await store.head()).seq == 1

    (published,) = await store.publish([draft(text="two")])

    assert (published.version, published.seq) == (2, 2)
    assert await assert_chained(store) == 2


async def test_a_file_that_is_no_database_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"certainly not a database " * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await SqlStore.open(f"sqlite:///{tmp_path}/store.db")


@pytest.mark.parametrize("url", ["mysql://u:secret@localhost/db", "sqlite://", "sqlite:///:memory:", "no url"])
async def test_a_url_that_cannot_be_served_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Unavailable) as refused:
        await SqlStore.open(url)
    assert "secret" not in refused.value.message


async def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        await SqlStore.open(f"sqlite:///{tmp_path}/file/below/store.db")


async def test_a_database_of_another_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await (await SqlStore.open(f"sqlite:///{tmp_path}/store.db")).close()
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("UPDATE deployment SET schema_version = schema_version + 1")
        connection.execute("DROP TABLE vectors")
        connection.commit()

    with pytest.raises(Unavailable, match=f"schema {SCHEMA_VERSION + 1}"):
        await SqlStore.open(f"sqlite:///{tmp_path}/store.db")

    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "versions" in names
    assert "vectors" not in names


async def test_a_damaged_page_is_unavailable_and_no_other_error(tmp_path: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    await store.publish([draft(f"skill-{n}", "x" * 4000) for n in range(60)])
    await store.close()
    size = (tmp_path / "store.db").stat().st_size
    with (tmp_path / "store.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    with pytest.raises(Unavailable, match="malformed"):
        await SqlStore.open(f"sqlite:///{tmp_path}/store.db")


async def test_a_full_disk_is_unavailable_and_the_store_goes_on_when_there_is_room(disk: Path) -> None:
    store = await SqlStore.open(f"sqlite:///{disk}/store.db")
    try:
        await store.publish([draft(text="one")])
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free))

        with pytest.raises(Full):
            await store.publish([draft(f"skill-{n}", "x" * 100) for n in range(100)])
        assert (await store.head()).seq == 1
        ballast.unlink()

        assert (await store.publish([draft(text="two")]))[0].version == 2
        assert await assert_chained(store) == 2
    finally:
        await store.close()
