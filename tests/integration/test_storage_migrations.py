"""A database made by the version before, which `tests/golden/schema-1-*.sql` are dumps of, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, update

from services.failures import Unavailable
from services.models import Usage
from services.storage import schema
from services.storage.sql import SqlStore
from tests.support.drafts import draft, sha256

pytestmark = pytest.mark.anyio


@pytest.fixture
async def migrated(old_url: str) -> AsyncIterator[SqlStore]:
    await SqlStore.migrate(old_url, dry_run=False)
    store = await SqlStore.open(old_url)
    yield store
    await store.close()


async def shape(store: SqlStore) -> dict[str, Any]:
    def read(connection: Any) -> dict[str, Any]:
        found = inspect(connection)
        return {
            table: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                sorted(index["name"] for index in found.get_indexes(table)),
            )
            for table in schema.metadata.tables
        }

    async with store.reading() as connection:
        return await connection.run_sync(read)


async def test_what_was_stored_is_there_after_the_migration_and_goes_on(migrated: SqlStore) -> None:
    snapshot = await migrated.snapshot()
    skills = {skill.id: skill for skill in snapshot.skills}
    alpha, beta = skills["main/alpha"], skills["main/beta"]
    assert alpha.active is not None
    assert (alpha.active.version, alpha.last_version, alpha.pinned) == (2, 3, ())
    assert skills["main/waiting"].status == "draft"
    assert [version.version for version in await migrated.versions("main/alpha")] == [3, 2, 1]
    assert list(await migrated.ledger("folder")) == ["alpha"]

    assert beta.deleted_version == 2, "as the log tells"
    assert skills["main/gamma"].deleted_version == 1, "the log is silent: the newest that can be served"
    assert (await migrated.restore("main/beta", "ann")).digest == f"sha256:{sha256('text 2')}"
    assert (await migrated.restore("main/gamma", "ann")).version == 1
    (published,) = await migrated.publish([draft(text="text 4")])
    assert (published.version, published.seq) == (4, snapshot.position.seq + 3)


async def test_calls_that_were_logged_before_are_counted(migrated: SqlStore) -> None:
    assert await migrated.usage("main/alpha") == [
        Usage("main/alpha", 2, 2, 2, "2026-11-21T00:00:03.000Z"),
        Usage("main/alpha", 1, 3, 0, "2026-11-21T00:00:04.000Z"),
    ]


async def test_a_migrated_database_has_the_shape_of_a_new_one(migrated: SqlStore) -> None:
    before = await shape(migrated)
    async with migrated.database.writing() as connection:
        for table in schema.metadata.tables:
            await connection.exec_driver_sql(f"DROP TABLE {table}")
    await migrated.database.prepare()
    assert before == await shape(migrated)


async def test_a_dry_run_says_the_steps_and_changes_nothing(old_url: str) -> None:
    for _ in range(2):
        planned = await SqlStore.migrate(old_url, dry_run=True)
        assert (planned.found, [step.to for step in planned.steps]) == (1, [2, 3, 4])
    done = await SqlStore.migrate(old_url, dry_run=False)
    assert (done.found, [step.to for step in done.steps]) == (1, [2, 3, 4])
    again = await SqlStore.migrate(old_url, dry_run=False)
    assert (again.found, again.steps) == (4, [])


def test_a_dry_run_makes_no_database(tmp_path: Path) -> None:
    planned = asyncio.run(SqlStore.migrate(f"sqlite:///{tmp_path}/none.db", dry_run=True))
    assert (planned.found, planned.steps, list(tmp_path.iterdir())) == (None, [], [])


async def test_a_replica_migrates_its_own_file_and_asks_before_it_migrates_what_others_share(old_url: str) -> None:
    if old_url.startswith("postgresql"):
        with pytest.raises(Unavailable, match="run `skillwire migrate`") as refused:
            await SqlStore.open(old_url)
        assert refused.value.code == "older_schema"
        assert (await SqlStore.migrate(old_url, dry_run=True)).found == 1, "nothing was changed"
    else:
        store = await SqlStore.open(old_url)
        assert len((await store.snapshot()).skills) == 4
        await store.close()
        assert (await SqlStore.migrate(old_url, dry_run=True)).found == 4


async def test_an_older_version_refuses_a_newer_database_and_leaves_it_as_it_is(database_url: str) -> None:
    store = await SqlStore.open(database_url)
    try:
        async with store.writing() as connection:
            await connection.execute(update(schema.deployment).values(schema_version=9))
            await connection.exec_driver_sql("DROP TABLE vectors")
        for attempt in (SqlStore.open(database_url), SqlStore.migrate(database_url, dry_run=False)):
            with pytest.raises(Unavailable, match="schema 9 of a newer Skillwire") as refused:
                await attempt
            assert refused.value.code == "newer_schema"
        async with store.reading() as connection:
            tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        assert "vectors" not in tables
    finally:
        await store.close()


async def test_of_replicas_that_migrate_at_once_one_does_it(old_url: str) -> None:
    await asyncio.gather(*(SqlStore.migrate(old_url, dry_run=False) for _ in range(4)))
    store = await SqlStore.open(old_url)
    usage = await store.usage("main/alpha")
    await store.close()
    assert [each.calls for each in usage] == [2, 3]
