"""What only a server of its own can do to a store: freeze, restart, be full of others' locks, be asked wrongly."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from services.clock import monotonic_s
from services.failures import Unavailable
from services.models import Invocation, LedgerEntry
from services.ports import InvocationQuery
from services.storage.blobs_table import TableBlobs
from services.storage.postgres import TAIL_TIMEOUT_S, WRITE_TIMEOUT_S
from services.storage.sql import SqlStore
from tests.support.drafts import assert_chained, draft
from tests.support.postgres import PostgresServer, new_database, running_server
from tests.support.publisher import published_once_more

pytestmark = pytest.mark.anyio

PAUSES = 40
# Less than the server lets a paused session hold a row (`idle_in_transaction_session_timeout`).
HELD_S = 1.8
# Beside the limit itself: what a busy machine adds to it.
SLACK_S = 1.5


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(postgres_url)
    yield store
    await store.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that tests may stop and freeze."""
    with running_server() as server:
        yield server


@pytest.fixture
async def replica(server: PostgresServer) -> AsyncIterator[SqlStore]:
    """A store on that server."""
    with new_database(server) as url:
        store = await SqlStore.open(url)
        try:
            yield store
        finally:
            await store.close()
            server.thaw()


@asynccontextmanager
async def publishing(data_dir: Path, url: str) -> AsyncIterator[int]:
    """The id of a process that publishes all the time."""
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.publisher", data_dir, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert publisher.stdin is not None
    assert publisher.stdout is not None
    publisher.stdin.write(b"\n")
    async with asyncio.timeout(30):  # an interpreter and all its imports, on a machine that is busy
        child = int(await publisher.stdout.readline())
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        publisher.stdin.close()
        async with asyncio.timeout(5):
            await publisher.wait()


async def test_a_replica_paused_at_any_moment_delays_no_other_ones_write(
    store: SqlStore, postgres_url: str, tmp_path: Path
) -> None:
    chance = random.Random(3)
    async with publishing(tmp_path, postgres_url) as child:
        for round_ in range(PAUSES):
            await published_once_more(tmp_path)
            await asyncio.sleep(chance.uniform(0.0, 0.01))  # time itself: when the pause falls is the test
            os.kill(child, signal.SIGSTOP)
            try:
                async with asyncio.timeout(HELD_S):
                    await store.publish([draft("gamma", f"{round_}"), draft("alpha", f"{round_}")])
            finally:
                os.kill(child, signal.SIGCONT)
    assert len(await store.versions("main/gamma")) == PAUSES
    assert await assert_chained(store) >= 4 * PAUSES


async def test_a_frozen_server_is_unavailable_in_time_and_works_again_after(
    server: PostgresServer, replica: SqlStore
) -> None:
    await replica.publish([draft(text="one")])
    server.freeze()
    started_s = monotonic_s()

    with pytest.raises(Unavailable):
        await replica.tail(0, 10)
    tail_s = monotonic_s() - started_s
    with pytest.raises(Unavailable):
        await replica.publish([draft(text="two")])
    write_s = monotonic_s() - started_s - tail_s
    with pytest.raises(Unavailable):
        await replica.head()

    assert tail_s < TAIL_TIMEOUT_S + SLACK_S
    assert write_s < WRITE_TIMEOUT_S + SLACK_S
    server.thaw()
    async with asyncio.timeout(10):
        assert (await replica.publish([draft(text="three")]))[0].version == 2
        assert len(await replica.tail(0, 10)) == 2


async def test_a_tail_that_is_given_up_while_the_server_is_frozen_ends_at_once(
    server: PostgresServer, replica: SqlStore
) -> None:
    """The feed gives a tail 50 ms; closing its connection politely would wait for the server instead."""
    await replica.publish([draft()])
    server.freeze()
    started_s = monotonic_s()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await replica.tail(0, 10)
    assert monotonic_s() - started_s < 1
    server.thaw()
    async with asyncio.timeout(5):
        assert len(await replica.tail(0, 10)) == 1


async def test_a_restarted_server_is_used_again_without_opening_the_store_anew(
    server: PostgresServer, replica: SqlStore
) -> None:
    await replica.publish([draft(text="one")])
    await asyncio.to_thread(server.stop)
    for attempt in (replica.tail(0, 10), replica.publish([draft(text="two")]), replica.snapshot()):
        with pytest.raises(Unavailable):
            await attempt
    await asyncio.to_thread(server.start)

    assert len(await replica.tail(0, 10)) == 1
    assert (await replica.publish([draft(text="two")]))[0].version == 2
    assert (await replica.snapshot()).position == await replica.head()


async def test_connections_that_died_while_nobody_used_them_are_not_used(
    server: PostgresServer, replica: SqlStore
) -> None:
    await replica.publish([draft(text="one")])
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    assert (await replica.publish([draft(text="two")]))[0].version == 2
    assert len(await replica.tail(0, 10)) == 2


async def test_a_counter_that_somebody_else_holds_is_unavailable_and_nothing_is_written(
    store: SqlStore, postgres_url: str
) -> None:
    await store.publish([draft(text="one")])
    other = await asyncpg.connect(postgres_url)
    try:
        async with other.transaction():
            await other.execute("UPDATE change_head SET seq = seq")
            with pytest.raises(Unavailable):
                async with asyncio.timeout(WRITE_TIMEOUT_S + SLACK_S):
                    await store.publish([draft(text="two")])
            assert len(await store.tail(0, 10)) == 1, "reads do not wait for writers"
    finally:
        await other.close()
    assert (await store.publish([draft(text="two")]))[0].version == 2
    assert await assert_chained(store) == 2


async def test_a_store_keeps_to_five_connections_and_gives_all_of_them_back(
    postgres: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    store = await SqlStore.open(postgres_url)
    blobs = TableBlobs(store)

    async def follow() -> None:
        for _ in range(30):  # one after the other, as a feed looks: each must be answered within a second
            await store.tail(0, 100)

    async with asyncio.TaskGroup() as group:
        group.create_task(follow())
        for n in range(30):
            group.create_task(store.publish([draft(f"skill-{n}")]))
            group.create_task(store.snapshot())
            group.create_task(blobs.put_many({}))
    open_now = int(postgres.execute(count))
    await store.close()

    assert 0 < open_now <= 5
    async with asyncio.timeout(5):
        while int(postgres.execute(count)):  # noqa: ASYNC110  # the server notices a moment later
            await asyncio.sleep(0.01)


async def test_text_that_postgresql_cannot_hold_is_kept_without_what_it_cannot(store: SqlStore) -> None:
    odd = Invocation(
        "inv-1", "2026-11-21T00:00:00.000Z", "a\0nn", "s" * 5000, "rest", "run\ud800", "main/alpha",
        1, "sha256:x", True, "", 1.5, '{"a": "\u00e9"}',
    )  # fmt: skip
    await store.record([odd])
    (found,) = await store.invocations(InvocationQuery(10))
    assert (found.caller, found.session, found.target) == ("a\ufffdnn", "s" * 5000, "run?")


async def test_quotes_and_backslashes_in_what_is_written_are_only_text(store: SqlStore) -> None:
    text = "'; DROP TABLE skills; --\\' %s $1 :name {}"
    await store.publish([draft("alpha", text, source_path=text)])
    await store.note([LedgerEntry("folder", text * 2, text, None, ())])
    active = (await store.snapshot()).skills[0].active
    assert active is not None
    assert active.description == f"alpha as of {text}"
    assert set(await store.ledger("folder")) == {text, text * 2}


@pytest.mark.usefixtures("store")
async def test_text_sorts_by_code_point_whatever_the_language_of_the_server(postgres_url: str) -> None:
    """`before` and `since` compare text as SQLite does. Looked up, since this server knows no language's order."""
    other = await asyncpg.connect(postgres_url)
    try:
        collations = await other.fetch(
            "SELECT DISTINCT collation_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type IN ('text', 'character varying')"
        )
    finally:
        await other.close()
    assert [row["collation_name"] for row in collations] == ["C"]


async def test_several_replicas_under_load_lose_races_and_no_writes(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [await SqlStore.open(postgres_url) for _ in range(4)]
        for store in stores:
            stack.push_async_callback(store.close)
        async with asyncio.timeout(20):
            await asyncio.gather(*(stores[n % 4].publish([draft(f"skill-{n}")]) for n in range(120)))
        assert await assert_chained(stores[0]) == 120


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@127.0.0.1:1/db",
        "postgresql://u:secret@/db?host=/nowhere",
        "postgresql://u@/db?host=/nowhere&password=secret",
        "postgresql://u:secret@/db?host=/nowhere&port=secret",
        "postgresql://u:secret@/db?host=/nowhere&sslmode=secret",
        "postgresql+psycopg://u:secret@localhost/db",
    ],
)
async def test_a_server_that_cannot_be_reached_is_unavailable_without_the_password(url: str) -> None:
    with pytest.raises(Unavailable) as refused:
        async with asyncio.timeout(5):
            await SqlStore.open(url)
    assert "secret" not in refused.value.message


async def test_a_database_or_user_that_does_not_exist_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        await SqlStore.open(postgres.url("nowhere"))


async def test_a_server_that_takes_no_writes_is_refused(postgres: PostgresServer, postgres_url: str) -> None:
    await (await SqlStore.open(postgres_url)).close()
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(Unavailable, match="read-only"):
        await SqlStore.open(postgres_url)


def test_without_the_driver_the_extra_is_named() -> None:
    code = (
        "import asyncio, sys; sys.modules['asyncpg'] = None\n"
        "from services.storage.sql import SqlStore\n"
        "asyncio.run(SqlStore.open('postgresql://u:secret@localhost/db'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.splitlines()[-1].endswith("install skillwire[postgres]")
    assert "Unavailable" in done.stderr
