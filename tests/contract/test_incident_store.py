"""What every `IncidentStore` must do, whatever it keeps its rows in."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from services.errors.nouns import Incident, IncidentQuery, Solution
from services.failures import Conflict, NotFound
from services.ports import IncidentStore
from services.storage.incident_rules import SOLUTIONS_MAX
from tests.support.drafts import assert_chained
from tests.support.stores import AnyStore, incidents_of, open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(store_url: str) -> AsyncIterator[tuple[AnyStore, AnyStore]]:
    first, second = await open_store(store_url), await open_store(store_url)
    yield first, second
    await first.close()
    await second.close()


@pytest.fixture
def store(pair: tuple[AnyStore, AnyStore]) -> IncidentStore:
    return incidents_of(pair[0])


def incident(number: int = 1, at: int = 10, count: int = 1) -> Incident:
    return Incident(
        id=f"inc-{number}",
        error_class="NETWORK" if number % 2 else "DATABASE",
        tool="main_alpha_run",
        skill="main/alpha",
        pattern=f"pattern {number}",
        code="tool_failed",
        level="none",
        count=count,
        first_at=f"2026-11-21T00:00:{at:02d}.000Z",
        last_at=f"2026-11-21T00:00:{at:02d}.000Z",
        message=f"message at {at}",
        arguments="{}",
        guard="g",
    )


def solution(number: int, of: int = 1) -> Solution:
    return Solution(f"sol-{number}", f"inc-{of}", f"text {number}", "ann", "2026-11-21T00:00:00.000Z")


async def test_occurrences_add_up_and_keep_the_first_and_the_last_time(store: IncidentStore) -> None:
    await store.record([])
    for at, count in ((20, 1), (10, 3), (30, 2), (15, 1)):
        [known] = await store.record([incident(at=at, count=count)])
    assert known == await store.incident("inc-1")
    assert (known.count, known.first_at[17:19], known.last_at[17:19]) == (7, "10", "30")
    assert known.message == "message at 20", "of the occurrence that was recorded first"
    with pytest.raises(NotFound):
        await store.incident("inc-2")


async def test_occurrences_of_two_replicas_at_once_are_all_counted(pair: tuple[AnyStore, AnyStore]) -> None:
    stores = [incidents_of(store) for store in pair]
    await asyncio.gather(*(stores[n % 2].record([incident(at=n)]) for n in range(20)))
    known = await stores[0].incident("inc-1")
    assert (known.count, known.first_at[17:19], known.last_at[17:19]) == (20, "00", "19")


async def test_incidents_are_listed_newest_first_by_class_and_in_pages(store: IncidentStore) -> None:
    await store.record([incident(number, at=number * 2) for number in range(1, 7)])
    await store.record([incident(2, at=50)])

    async def ids(query: IncidentQuery) -> list[str]:
        return [each.id[4:] for each in await store.incidents(query)]

    assert await ids(IncidentQuery(10)) == ["2", "6", "5", "4", "3", "1"]
    assert await ids(IncidentQuery(2, "NETWORK")) == ["5", "3"]
    after = await store.incident("inc-5")
    assert await ids(IncidentQuery(2, after=(after.last_at, after.id))) == ["4", "3"]


async def test_solutions_and_levels_are_changes_and_what_is_known(
    store: IncidentStore, pair: tuple[AnyStore, AnyStore]
) -> None:
    await store.record([incident(number, at=number) for number in range(1, 5)])
    assert await store.add_solution(solution(1), "main", "public") == 1
    assert await store.add_solution(solution(2, of=3), "team", "private") == 2
    marked, seq = await store.mark("inc-2", "block", "ann", "main", "public")

    assert (marked.level, seq) == ("block", 3)
    with pytest.raises(NotFound):
        await store.mark("inc-9", "warn", "ann", "main", "public")
    with pytest.raises(NotFound):
        await store.add_solution(solution(3, of=9), "main", "public")
    known = await store.known(1)
    assert [each.id for each in known.marked] == ["inc-2"]
    assert [each.id for each in known.solved] == ["inc-3"], "the one that was seen last"
    assert len((await store.known(10)).solved) == 2
    assert await store.solutions(["inc-1", "inc-2"]) == [solution(1)]
    changes = await pair[1].tail(0, 10)
    assert [change.kind for change in changes] == ["solution.added", "solution.added", "incident.marked"]
    assert msgspec.json.decode(changes[2].data)["level"] == "block"
    assert await assert_chained(pair[1]) == 3


async def test_outcomes_are_counted_and_solutions_are_bounded(store: IncidentStore) -> None:
    await store.record([incident()])
    await asyncio.gather(*(store.add_solution(solution(n), "main", "public") for n in range(SOLUTIONS_MAX)))
    with pytest.raises(Conflict):
        await store.add_solution(solution(SOLUTIONS_MAX), "main", "public")
    await asyncio.gather(*(store.count_outcome("inc-1", "sol-1", n % 2 == 0) for n in range(6)))

    counted = await store.count_outcome("inc-1", "sol-1", True)

    assert (counted.tried, counted.worked) == (7, 4)
    with pytest.raises(NotFound):
        await store.count_outcome("inc-1", "sol-99", True)
    assert len(await store.solutions(["inc-1"])) == SOLUTIONS_MAX
