"""What every `RunStore` must do, whatever it keeps its runs in."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from services.failures import NotFound
from services.ports import RunStore
from services.runs.nouns import Run, RunError, RunQuery, RunStatus
from tests.support.drafts import assert_chained
from tests.support.stores import AnyStore, open_store, runs_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(store_url: str) -> AsyncIterator[tuple[AnyStore, AnyStore]]:
    first, second = await open_store(store_url), await open_store(store_url)
    yield first, second
    await first.close()
    await second.close()


@pytest.fixture
def store(pair: tuple[AnyStore, AnyStore]) -> RunStore:
    return runs_of(pair[0])


def a_run(number: int = 1, principal: str = "ann", status: RunStatus = "working") -> Run:
    return Run(
        id=f"run-{number:02d}",
        principal=principal,
        status=status,
        tool="main_alpha_run",
        skill="main/alpha",
        version=3,
        digest="sha256:0",
        replica="r1",
        created_at="2026-11-21T00:00:00.000Z",
        changed_at="2026-11-21T00:00:00.000Z",
        expires_at=f"2026-11-22T00:00:{number:02d}.000Z",
        arguments={"text": "\0 and ü"},
        questions={"1.name": {"method": "elicitation/create"}},
    )


def becoming(status: RunStatus) -> Callable[[Run], Run]:
    return lambda run: msgspec.structs.replace(run, status=status)


async def test_a_run_is_read_as_it_was_made_on_every_replica(store: RunStore, pair: tuple[AnyStore, AnyStore]) -> None:
    made = await store.create(a_run())
    assert made == msgspec.structs.replace(a_run(), seq=1)
    assert await runs_of(pair[1]).run("run-01") == made
    with pytest.raises(NotFound):
        await store.run("run-02")
    with pytest.raises(NotFound):
        await store.change("run-02", becoming("failed"))


async def test_every_change_is_a_row_of_the_log_that_names_the_run_and_nothing_else(
    store: RunStore, pair: tuple[AnyStore, AnyStore]
) -> None:
    await store.create(a_run())
    failed = await store.change(
        "run-01", lambda run: msgspec.structs.replace(run, status="failed", error=RunError("code", "message", {"a": 1}))
    )
    assert failed == await store.run("run-01")
    assert (failed.seq, failed.error) == (2, RunError("code", "message", {"a": 1}))
    assert failed.changed_at > a_run().changed_at
    assert await store.change("run-01", lambda _: None) == failed

    changes = await pair[1].tail(0, 10)
    assert [(change.topic, change.kind, change.dep) for change in changes] == [
        ("runs", "run.working", "runs"),
        ("runs", "run.failed", "runs"),
    ]
    assert {(change.owner, change.visibility) for change in changes} == {("main", "private")}
    assert msgspec.json.decode(changes[1].data) == {"id": "run-01", "status": "failed"}
    assert await assert_chained(pair[1]) == 2


async def test_of_changes_at_once_each_is_made_of_what_the_one_before_has_left(
    store: RunStore, pair: tuple[AnyStore, AnyStore]
) -> None:
    await store.create(a_run())

    def one_more(run: Run) -> Run:
        return msgspec.structs.replace(run, round=run.round + 1)

    await asyncio.gather(*(runs_of(pair[n % 2]).change("run-01", one_more) for n in range(10)))
    changed = await store.run("run-01")
    assert (changed.round, changed.seq) == (11, 11)


async def test_a_large_result_comes_back_whole(store: RunStore) -> None:
    await store.create(a_run())
    result = {"blob": random.Random(1).randbytes(400_000).hex()}  # takes several items where items are small
    done = await store.change("run-01", lambda run: msgspec.structs.replace(run, status="completed", result=result))
    assert await store.run("run-01") == done
    assert done.result == result


async def test_runs_are_listed_by_principal_newest_first_in_pages(store: RunStore) -> None:
    for number in range(1, 6):
        await store.create(a_run(number, "ann" if number % 2 else "bob"))

    async def ids(query: RunQuery) -> list[str]:
        return [run.id for run in await store.runs(query)]

    assert await ids(RunQuery("ann", 10)) == ["run-05", "run-03", "run-01"]
    assert await ids(RunQuery("ann", 2)) == ["run-05", "run-03"]
    assert await ids(RunQuery("ann", 2, "run-03")) == ["run-01"]
    assert await ids(RunQuery("eve", 2)) == []


async def test_those_that_work_are_known_until_they_do_not(store: RunStore) -> None:
    for number in (1, 2, 3):
        await store.create(a_run(number))
    await store.change("run-02", becoming("input_required"))
    await store.change("run-03", becoming("completed"))
    assert [run.id for run in await store.working()] == ["run-01"]
    await store.change("run-02", becoming("working"))
    assert sorted(run.id for run in await store.working()) == ["run-01", "run-02"]


async def test_what_has_expired_is_removed_in_batches_oldest_first(store: RunStore) -> None:
    for number in range(1, 5):
        await store.create(a_run(number))
    before = a_run(4).expires_at
    assert [await store.expire_runs(before, 2), await store.expire_runs(before, 2)] == [2, 1]
    assert await store.expire_runs(before, 2) == 0
    assert [run.id for run in await store.runs(RunQuery("ann", 10))] == ["run-04"]
    assert [run.id for run in await store.working()] == ["run-04"]
    with pytest.raises(NotFound):
        await store.run("run-01")
