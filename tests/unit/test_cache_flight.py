"""Single flight: one load for any number of callers, whoever of them leaves."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.cache.flight import Flights

pytestmark = pytest.mark.anyio


class Loader:
    """Counts its loads; each waits for `gate`, and then answers its number or raises `error`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started = 0
        self.cancelled = 0
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.started += 1
        number = self.started
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
async def flights() -> AsyncIterator[Flights[int]]:
    flights: Flights[int] = Flights()
    yield flights
    await flights.close()


async def waiting(flights: Flights[int], loader: Loader, count: int, key: str = "key") -> list[asyncio.Task[int]]:
    """`count` callers, all of them inside `load`."""
    tasks = [asyncio.create_task(flights.load(key, loader)) for _ in range(count)]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_a_thousand_callers_share_one_load(flights: Flights[int]) -> None:
    loader = Loader()
    callers = await waiting(flights, loader, 1000)
    others = await waiting(flights, loader, 1, "other key")
    loader.gate.set()
    assert await asyncio.gather(*callers) == [1] * 1000
    assert await asyncio.gather(*others) == [2]
    assert loader.started == 2


async def test_the_first_caller_leaves_and_the_others_are_answered_by_its_load(flights: Flights[int]) -> None:
    loader = Loader()
    first, *others = await waiting(flights, loader, 1000)
    first.cancel()
    await asyncio.wait([first], timeout=5)
    loader.gate.set()
    assert await asyncio.gather(*others) == [1] * 999
    assert first.cancelled()
    assert (loader.started, loader.cancelled) == (1, 0)


async def test_when_the_last_caller_leaves_the_load_is_cancelled_and_the_next_begins_anew(
    flights: Flights[int],
) -> None:
    loader = Loader()
    callers = await waiting(flights, loader, 10)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers, timeout=5)

    loader.gate.set()
    assert await flights.load("key", loader) == 2
    assert (loader.started, loader.cancelled) == (2, 1)


async def test_an_error_reaches_every_caller_and_is_not_kept(flights: Flights[int]) -> None:
    loader = Loader()
    loader.error = ValueError("no such luck")
    callers = await waiting(flights, loader, 100)
    loader.gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert outcomes == [loader.error] * 100

    loader.error = None
    assert await flights.load("key", loader) == 2


async def test_a_doomed_load_still_answers_those_who_wait_and_nobody_after_them(flights: Flights[int]) -> None:
    loader = Loader()
    early = await waiting(flights, loader, 3)
    flights.doom("key")
    late = await waiting(flights, loader, 3)
    loader.gate.set()
    assert await asyncio.gather(*early, *late) == [1, 1, 1, 2, 2, 2]


async def test_leaving_a_doomed_load_leaves_the_load_after_it_alone(flights: Flights[int]) -> None:
    loader = Loader()
    (early,) = await waiting(flights, loader, 1)
    flights.doom("key")
    late = await waiting(flights, loader, 1)
    early.cancel()
    await asyncio.wait([early], timeout=5)

    late += await waiting(flights, loader, 1)

    loader.gate.set()
    assert await asyncio.gather(*late) == [2, 2]
    assert (loader.started, loader.cancelled) == (2, 1)


async def test_doom_all_detaches_every_key(flights: Flights[int]) -> None:
    loader = Loader()
    early = [*await waiting(flights, loader, 1, "a"), *await waiting(flights, loader, 1, "b")]
    flights.doom_all()
    late = [*await waiting(flights, loader, 1, "a"), *await waiting(flights, loader, 1, "b")]
    loader.gate.set()
    assert await asyncio.gather(*early, *late) == [1, 2, 3, 4]


async def test_close_ends_the_loads_under_way(flights: Flights[int]) -> None:
    loader = Loader()
    callers = await waiting(flights, loader, 5)
    async with asyncio.timeout(5):
        await flights.close()
        await asyncio.wait(callers)
    assert loader.cancelled == 1
    assert all(caller.cancelled() for caller in callers)


async def test_a_load_that_is_kept_goes_on_when_everybody_has_left(flights: Flights[int]) -> None:
    loader = Loader()
    impatient = asyncio.create_task(flights.load("key", loader, keep=True))
    for _ in range(3):
        await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient], timeout=5)
    late = await waiting(flights, loader, 1)
    loader.gate.set()
    assert await asyncio.gather(*late) == [1]
    assert (loader.started, loader.cancelled) == (1, 0)


async def test_a_caller_between_the_end_of_a_load_and_its_landing_starts_a_new_one(flights: Flights[int]) -> None:
    """Given the ended one, a caller that refuses it and asks again would never let the loop run."""
    loader = Loader()
    (first,) = await waiting(flights, loader, 1)
    loader.gate.set()  # the load ends in its next step, which stands before the next caller's first
    assert await asyncio.create_task(flights.load("key", loader)) == 2
    assert await first == 1
