"""Hints of a real PostgreSQL: sooner when they come, and nothing but later when they do not."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from services.changes.log import ChangeFeed
from services.changes.postgres_hints import CHANNEL, PostgresHints
from services.storage.sql import SqlStore
from tests.support.chaos import TroubledReader
from tests.support.drafts import draft
from tests.support.listed_log import RecordingSink
from tests.support.postgres import PostgresServer
from tests.support.proxy import half_open_proxy

pytestmark = pytest.mark.anyio

NEVER_S = 3600.0


class NotifiedReplica:
    """A feed that tails at a hint and hardly ever else; `reader.tails` counts what reaches the database."""

    def __init__(self, store: SqlStore, reader: TroubledReader, feed: ChangeFeed, hints: PostgresHints) -> None:
        self.store = store
        self.reader = reader
        self.feed = feed
        self.hints = hints
        self.sink = RecordingSink()
        feed.follow(self.sink)


@pytest.fixture
async def stack(postgres_url: str) -> AsyncIterator[AsyncExitStack]:  # noqa: ARG001  # is closed before that is gone
    async with AsyncExitStack() as opened:
        yield opened


async def replica(stack: AsyncExitStack, url: str, *, hints_url: str = "", silence_s: float = 5.0) -> NotifiedReplica:
    store = await SqlStore.open(url)
    stack.push_async_callback(store.close)
    reader = TroubledReader(store)
    feed = ChangeFeed(reader, await store.head(), interval_s=NEVER_S)
    hints = PostgresHints(hints_url or url, feed.hinted, silence_s=silence_s)
    made = NotifiedReplica(store, reader, feed, hints)
    hints.start()
    stack.push_async_callback(hints.close)
    feed.start()
    stack.push_async_callback(feed.close)
    await set_within(hints.listening)
    await until(lambda: reader.tails > 0)  # the first, unasked one
    return made


async def set_within(event: asyncio.Event, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()


async def until(claim: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not claim():  # noqa: ASYNC110  # another process's news have no event
            await asyncio.sleep(0.002)


async def client(stack: AsyncExitStack, url: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(url)
    stack.push_async_callback(connection.close)
    return connection


async def published(store: SqlStore, text: str) -> int:
    """By whoever it is that tells nobody: the commit does."""
    return (await store.publish([draft(text=text)]))[0].seq


async def test_without_redis_a_commit_makes_every_replica_tail(stack: AsyncExitStack, postgres_url: str) -> None:
    first, second = await replica(stack, postgres_url), await replica(stack, postgres_url)
    for turn in range(1, 11):
        seq = await published((first if turn % 2 else second).store, f"turn {turn}")
        await until(lambda to=seq: first.feed.applied == second.feed.applied == to)  # type: ignore[misc]  # bound now
    assert first.sink.seqs == second.sink.seqs == list(range(1, 11))


async def test_a_write_that_changes_nothing_tells_nobody(stack: AsyncExitStack, postgres_url: str) -> None:
    told: list[str] = []
    listener = await client(stack, postgres_url)
    await listener.add_listener(CHANNEL, lambda *words: told.append(words[3]))
    store = await SqlStore.open(postgres_url)
    stack.push_async_callback(store.close)

    await published(store, "one")
    await published(store, "one")
    await published(store, "two")

    await until(lambda: "2" in told)
    assert told == ["1", "2"]


async def test_forged_hints_and_garbage_move_nothing_and_cost_a_bounded_number_of_tails(
    stack: AsyncExitStack, postgres_url: str
) -> None:
    at = await replica(stack, postgres_url)
    forger = await client(stack, postgres_url)
    before = at.reader.tails
    for garbage in ("", "-1", "1e9", "9" * 16, "{}", "0", "\N{ARABIC-INDIC DIGIT ONE}"):
        await forger.execute("SELECT pg_notify($1, $2)", CHANNEL, garbage)
    started_s = asyncio.get_running_loop().time()
    await forger.execute(f"SELECT pg_notify('{CHANNEL}', (10^14)::bigint::text || g) FROM generate_series(1, 5) g")
    for number in range(500):
        await forger.execute("SELECT pg_notify($1, $2)", CHANNEL, str(10**14 + number))
    took_s = asyncio.get_running_loop().time() - started_s
    await until(lambda: at.reader.tails > before)

    assert at.reader.tails - before <= 200 * (took_s + 1)
    assert (at.sink.seqs, at.feed.applied) == ([], 0)
    assert (await at.feed.bound()).asof == 0


async def test_a_listener_that_the_server_ends_is_back_at_once(stack: AsyncExitStack, postgres_url: str) -> None:
    at = await replica(stack, postgres_url)
    operator = await client(stack, postgres_url)
    ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'skillwire hints'"
    ours = f"{ended} AND datname = current_database()"
    for turn in range(3):
        assert await operator.fetchval(ours) == 1
        await until(lambda: not at.hints.listening.is_set())
        await set_within(at.hints.listening)
        seq = await published(at.store, f"turn {turn}")
        await until(lambda to=seq: at.feed.applied == to)  # type: ignore[misc]  # bound now


async def test_a_connection_that_has_silently_died_is_given_up_and_made_anew(
    stack: AsyncExitStack, postgres: PostgresServer, postgres_url: str
) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skillwire-")))
    proxy = await stack.enter_async_context(
        half_open_proxy(postgres.folder / ".s.PGSQL.5432", folder / ".s.PGSQL.5432")
    )
    through = postgres_url.replace(str(postgres.folder), str(folder))
    at = await replica(stack, postgres_url, hints_url=through, silence_s=0.3)

    assert proxy.silence() == 1
    await published(at.store, "nobody hears of it")
    await until(lambda: not at.hints.listening.is_set())
    assert at.feed.applied == 0
    await set_within(at.hints.listening)
    seq = await published(at.store, "this is heard")
    await until(lambda: at.feed.applied == seq)
    assert at.sink.seqs == [1, 2]


async def test_a_frozen_server_is_waited_for_without_end_and_heard_again(
    stack: AsyncExitStack, postgres: PostgresServer, postgres_url: str
) -> None:
    at = await replica(stack, postgres_url, silence_s=0.2)
    postgres.freeze()
    stack.callback(postgres.thaw)
    await until(lambda: not at.hints.listening.is_set())
    postgres.thaw()
    await set_within(at.hints.listening, 10)
    seq = await published(at.store, "afterwards")
    await until(lambda: at.feed.applied == seq)
