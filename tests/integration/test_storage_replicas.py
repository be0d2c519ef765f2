"""Several stores on one database, as replicas have them: a file on one machine, a PostgreSQL server, DynamoDB."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.failures import Conflict
from tests.support.drafts import assert_chained, assert_linked, draft
from tests.support.stores import AnyStore, open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(store_url: str) -> AsyncIterator[tuple[AnyStore, AnyStore]]:
    first = await open_store(store_url)
    second = await open_store(store_url)
    yield first, second
    await first.close()
    await second.close()


async def test_two_hundred_publishes_at_once_take_two_hundred_numbers(pair: tuple[AnyStore, AnyStore]) -> None:
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(pair[n % 2].publish([draft(text=f"text {n}")]) for n in range(200)))

    assert sorted(answer.version for (answer,) in answers) == list(range(1, 201))
    assert sorted(answer.seq for (answer,) in answers) == list(range(1, 201))
    assert await assert_chained(pair[0]) == 200
    assert_linked(await pair[0].tail(0, 1000), (await pair[1].head()).epoch)
    by_seq = sorted((answer for (answer,) in answers), key=lambda answer: answer.seq)
    assert [answer.version for answer in by_seq] == list(range(1, 201)), "the later commit has the higher number"
    digests = {version.version: version.digest for version in await pair[1].versions("main/alpha")}
    assert digests == {answer.version: answer.digest for (answer,) in answers}, "no version is lost or another's"


async def test_a_reader_never_sees_a_row_appear_before_one_it_has_seen(pair: tuple[AnyStore, AnyStore]) -> None:
    seen: list[int] = []

    async def follow() -> None:
        while not seen or seen[-1] < 100:
            # From the start each time: a row that was committed late would stand between known ones.
            found = [change.seq for change in await pair[0].tail(0, 1000)]
            assert found[: len(seen)] == seen
            seen[:] = found

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for n in range(100):
            group.create_task(pair[n % 2].publish([draft(f"skill-{n % 7}", f"text {n}")]))
    assert seen == list(range(1, 101))


async def test_of_many_conditional_publishes_one_goes_through(pair: tuple[AnyStore, AnyStore]) -> None:
    (published,) = await pair[0].publish([draft(text="base")])
    for round_ in range(10):
        outcomes = await asyncio.gather(
            *(
                pair[n % 2].publish([draft(text=f"text {round_} {n}", if_match=published.digest)])
                for n in range(20)
            ),
            return_exceptions=True,
        )  # fmt: skip

        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert (len(won), len(lost)) == (1, 19)
        (published,) = won[0]
        assert {conflict.facts["active_digest"] for conflict in lost} == {published.digest}
        assert published.version == round_ + 2


async def test_a_write_of_one_replica_is_in_the_others_next_tail(pair: tuple[AnyStore, AnyStore]) -> None:
    for n in range(10):
        (published,) = await pair[n % 2].publish([draft(text=f"text {n}")])
        assert [change.seq for change in await pair[1 - n % 2].tail(published.seq - 1, 10)] == [published.seq]


async def test_replicas_that_start_at_once_on_no_database_share_one(store_url: str) -> None:
    async with asyncio.timeout(60):
        stores = await asyncio.gather(*(open_store(store_url) for _ in range(6)))
    try:
        assert len({(await store.head()).epoch for store in stores}) == 1
    finally:
        for store in stores:
            await store.close()
