"""Several stores on one database file, as replicas on one machine have them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.failures import Conflict
from services.storage.sql import SqlStore
from tests.support.drafts import assert_chained, assert_linked, draft, sha256

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    first = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    second = await SqlStore.open(f"sqlite:///{tmp_path}/store.db")
    yield first, second
    await first.close()
    await second.close()


async def test_a_hundred_publishes_at_once_take_a_hundred_numbers(
    pair: tuple[SqlStore, SqlStore], tmp_path: Path
) -> None:
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(pair[n % 2].publish([draft(text=f"text {n}")]) for n in range(100)))

    assert sorted(answer.version for (answer,) in answers) == list(range(1, 101))
    assert sorted(answer.seq for (answer,) in answers) == list(range(1, 101))
    assert assert_chained(tmp_path / "store.db") == 100
    assert_linked(await pair[0].tail(0, 1000), (await pair[1].head()).epoch)
    by_seq = sorted((answer for (answer,) in answers), key=lambda answer: answer.seq)
    assert [answer.version for answer in by_seq] == list(range(1, 101)), "the later commit has the higher number"


async def test_of_many_conditional_publishes_one_goes_through(pair: tuple[SqlStore, SqlStore]) -> None:
    await pair[0].publish([draft(text="base")])
    base = f"sha256:{sha256('base')}"

    outcomes = await asyncio.gather(
        *(pair[n % 2].publish([draft(text=f"text {n}", if_match=base)]) for n in range(20)), return_exceptions=True
    )

    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(won), len(lost)) == (1, 19)
    assert {conflict.facts["active_digest"] for conflict in lost} == {won[0][0].digest}


async def test_a_write_of_one_replica_is_in_the_others_next_tail(pair: tuple[SqlStore, SqlStore]) -> None:
    for n in range(10):
        (published,) = await pair[n % 2].publish([draft(text=f"text {n}")])
        assert [change.seq for change in await pair[1 - n % 2].tail(published.seq - 1, 10)] == [published.seq]


async def test_replicas_that_start_at_once_on_no_database_share_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fresh/store.db"
    async with asyncio.timeout(20):
        stores = await asyncio.gather(*(SqlStore.open(url) for _ in range(6)))
    try:
        assert len({(await store.head()).epoch for store in stores}) == 1
    finally:
        for store in stores:
            await store.close()
