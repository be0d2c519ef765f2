"""Work behaves in an eager task as it does in asyncio's own; each test runs in both."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from notifier.eager import EagerTask, start_eagerly

pytestmark = pytest.mark.anyio

Start = Callable[[Coroutine[Any, Any, Any]], "asyncio.Future[Any]"]
place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="outside")


async def in_callback(start: Callable[[], "asyncio.Future[Any]"]) -> "asyncio.Future[Any]":
    """Calls `start` where no task is current."""
    loop = asyncio.get_running_loop()
    started: asyncio.Future[asyncio.Future[Any]] = loop.create_future()
    loop.call_soon(lambda: started.set_result(start()))
    async with asyncio.timeout(5):
        return await started


@pytest.fixture(params=["eager", "asyncio"])
def make(request: pytest.FixtureRequest) -> Start:
    if request.param == "eager":
        return lambda work: EagerTask(work, asyncio.get_running_loop())
    return lambda work: asyncio.get_running_loop().create_task(work)


async def ended(make: Start, work: Coroutine[Any, Any, Any]) -> Any:
    """What the work answers, or what it raises."""
    task = await in_callback(lambda: make(work))
    async with asyncio.timeout(5):
        return await task


async def test_work_that_never_waits_is_done_when_it_is_started() -> None:
    async def work() -> asyncio.Future[Any] | None:
        return asyncio.current_task()

    task = await in_callback(lambda: EagerTask(work(), asyncio.get_running_loop()))
    assert task.done()
    assert task.result() is task
    assert asyncio.current_task() is not task


async def test_started_in_a_task_it_leaves_that_one_current() -> None:
    async def work() -> object:
        return asyncio.current_task()

    task = start_eagerly(work(), asyncio.get_running_loop())
    assert isinstance(task, asyncio.Task)
    assert await task is task
    assert await in_callback(lambda: start_eagerly(work(), asyncio.get_running_loop())) is not None


async def test_it_waits_for_futures_and_for_nothing_and_is_current_after_each(make: Start) -> None:
    later = asyncio.get_running_loop().create_future()

    async def work() -> list[object]:
        tasks: list[object] = [asyncio.current_task()]
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())
        tasks.append(await later)
        tasks.append(asyncio.current_task())
        return tasks

    task = await in_callback(lambda: make(work()))
    await asyncio.sleep(0)
    assert task in asyncio.all_tasks()
    later.set_result("answer")
    assert await task == [task, task, "answer", task]
    assert task not in asyncio.all_tasks()


@pytest.mark.parametrize("waits", [0, 1])
async def test_what_it_raises_is_raised_to_who_waits_for_it(make: Start, waits: int) -> None:
    async def work() -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await ended(make, work())


async def test_failure_of_what_it_waits_for_is_raised_inside_of_it(make: Start) -> None:
    async def work() -> str:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_exception, LookupError("no"))
        with pytest.raises(LookupError) as raised:
            await future
        return str(raised.value)

    assert await ended(make, work()) == "no"


async def test_cancelling_reaches_what_it_waits_for(make: Start) -> None:
    reached = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            reached.set()

    task = await in_callback(lambda: make(work()))
    await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reached.is_set()
    assert task.cancelled()
    assert not task.cancel()


async def test_cancelling_between_two_steps_is_not_forgotten(make: Start) -> None:
    seen: list[object] = []

    async def work(wait: Callable[[], Coroutine[Any, Any, object]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("from inside")
        try:
            await wait()
        except asyncio.CancelledError as error:
            seen.append((error.args, task.cancelling()))
            raise

    for wait in (lambda: asyncio.sleep(0), asyncio.Event().wait):
        with pytest.raises(asyncio.CancelledError):
            await ended(make, work(wait))
    assert seen == [(("from inside",), 1)] * 2


async def test_work_that_ends_in_spite_of_it_counts_as_cancelled(make: Start) -> None:
    async def work() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    with pytest.raises(asyncio.CancelledError):
        await ended(make, work())


async def test_timeouts_hold_and_leave_nothing_behind(make: Start) -> None:
    async def work() -> int:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
            return task.cancelling()
        raise AssertionError

    assert await ended(make, work()) == 0


async def test_task_group_whose_member_fails_ends_the_others_and_the_work_goes_on(make: Start) -> None:
    async def fails() -> None:
        raise LookupError

    async def work() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.Event().wait())
                group.create_task(fails())
                await asyncio.Event().wait()
        except* LookupError:
            pass
        await asyncio.sleep(0)
        return "went on"

    assert await ended(make, work()) == "went on"


async def test_scopes_and_threads_of_anyio_work_in_it(make: Start) -> None:
    async def work() -> list[object]:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.cancel_scope.cancel()
        return [scope.cancelled_caught, await anyio.to_thread.run_sync(lambda: "from a thread")]

    assert await ended(make, work()) == [True, "from a thread"]


async def test_what_it_sets_in_its_context_stays_there(make: Start) -> None:
    async def work() -> str:
        place.set("inside")
        await asyncio.sleep(0)
        return place.get()

    assert await ended(make, work()) == "inside"
    assert place.get() == "outside"


class _Odd:
    def __await__(self) -> Any:
        yield "not a future"


async def test_waiting_for_what_is_no_future_is_an_error(make: Start) -> None:
    async def work() -> None:
        await _Odd()

    with pytest.raises(RuntimeError):
        await ended(make, work())
