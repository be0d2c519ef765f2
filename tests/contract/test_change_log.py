"""What every store must do when its log is fenced or trimmed, whatever it keeps its rows in."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.drafts import assert_linked, draft
from tests.support.stores import AnyStore, open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(store_url: str) -> AsyncIterator[tuple[AnyStore, AnyStore]]:
    first, second = await open_store(store_url), await open_store(store_url)
    yield first, second
    await first.close()
    await second.close()


async def test_of_those_who_fence_one_epoch_one_does_it_and_all_are_told_the_same(
    pair: tuple[AnyStore, AnyStore],
) -> None:
    await pair[0].publish([draft()])
    before = await pair[0].head()

    fenced = await asyncio.gather(*(pair[n % 2].fence(before.epoch) for n in range(6)))

    assert len(set(fenced)) == 1
    assert fenced[0].epoch != before.epoch
    assert (fenced[0].seq, fenced[0].id.rpartition("-")[2]) == (before.seq, before.id.rpartition("-")[2])
    assert [await store.head() for store in pair] == [fenced[0]] * 2


async def test_the_whole_log_is_named_in_the_new_epoch_and_goes_on_in_it(pair: tuple[AnyStore, AnyStore]) -> None:
    for text in ("one", "two"):
        await pair[0].publish([draft(text=text)])
    fenced = await pair[0].fence((await pair[0].head()).epoch)
    await pair[1].publish([draft(text="by one that has not noticed")])
    await pair[0].publish([draft(text="by one that has")])

    for store in pair:
        rows = await store.tail(0, 100)
        assert_linked(rows, fenced.epoch)
        snapshot = await store.snapshot()
        assert snapshot.position.id == rows[-1].id == (await store.head()).id
        assert set(snapshot.streams.values()) == {rows[-1].id}


async def test_trimming_removes_the_oldest_rows_in_batches_and_never_one_that_is_kept(
    pair: tuple[AnyStore, AnyStore],
) -> None:
    store = pair[0]
    assert await store.trim(1, 10, sealed=99) == 0
    for number in range(10):
        await store.publish([draft(text=f"text {number}")])
    head = await store.head()
    assert [await store.trim(4, 4, sealed=99) for _ in range(3)] == [4, 2, 0]
    assert [row.seq for row in await pair[1].tail(0, 100)] == [7, 8, 9, 10]
    assert await store.trim(0, 100, sealed=99) == 3, "the newest row always stays"
    assert await store.head() == head
    (published,) = await store.publish([draft(text="after it")])
    assert published.seq == 11
