"""Tasks that make their first step where they are started, as those of Python 3.12 can (`eager_start`).

A task that is made in a callback begins in the next turn of the loop. For a call whose answer is at hand that turn, and
what it takes to get there, costs more than the call. asyncio lets tasks be implemented by others: what it must be told
is in its documentation ("Extending", https://docs.python.org/3/library/asyncio-extending.html); what a task must do is
what `asyncio.tasks.Task` does in Python.
"""

import asyncio
import contextvars
import types
from collections.abc import Awaitable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TimeIsUp(Exception):
    """Of `within`; a `TimeoutError` is the work's own."""


async def within(timeout_s: float, work: Awaitable[T]) -> T:
    """Awaits the work, for so long from when it first waits: work that does not wait needs no timer."""
    steps = work.__await__()
    try:
        awaited = next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await _go_on(steps, awaited)
    except TimeoutError as error:
        if deadline.expired():
            raise TimeIsUp from error
        raise


@types.coroutine
def _go_on(steps: Generator[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    while True:
        try:
            value = yield awaited
        except BaseException as error:  # noqa: BLE001  # raised in the work
            step = partial(steps.throw, error)
        else:
            step = partial(steps.send, value)
        try:
            awaited = step()
        except StopIteration as end:
            result: T = end.value
            return result


def start_eagerly(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> "asyncio.Task[T] | EagerTask[T]":
    """A task that may be done already; started inside of another task, it begins in the next turn as any other.

    `loop` is the running one: to find it out anew is a system call in Python 3.11.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(work)
    return EagerTask(work, loop)


class EagerTask(asyncio.Future[T], Generic[T]):
    """To be made in a callback of the running loop, where no task is current."""

    _fut_waiter: "asyncio.Future[Any] | None" = None  # these two by the names that anyio knows
    _must_cancel = False
    _cancel_message: Any = None
    _cancels_requested = 0

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._work = work
        self._context = contextvars.copy_context()
        self._context.run(self._step)
        if not self.done():
            asyncio._register_task(self)  # type: ignore[arg-type]  # documented

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        self._cancels_requested += 1
        if self._fut_waiter is None or not self._fut_waiter.cancel(msg):
            self._must_cancel, self._cancel_message = True, msg
        return True

    def cancelling(self) -> int:
        return self._cancels_requested

    def uncancel(self) -> int:
        self._cancels_requested = max(0, self._cancels_requested - 1)
        return self._cancels_requested

    def get_coro(self) -> Coroutine[Any, Any, T]:
        return self._work

    def get_name(self) -> str:
        return str(getattr(self._work, "__qualname__", self._work))

    def get_context(self) -> contextvars.Context:
        return self._context

    def _step(self, error: BaseException | None = None) -> None:
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, asyncio.CancelledError):
                error = asyncio.CancelledError(self._cancel_message)
        self._fut_waiter = None
        loop = self.get_loop()
        asyncio._enter_task(loop, self)  # type: ignore[arg-type]  # documented
        try:
            awaited = self._work.send(None) if error is None else self._work.throw(error)
        except StopIteration as end:
            if self._must_cancel:  # too late to reach the work, and it is told all the same
                super().cancel(self._cancel_message)
            else:
                self.set_result(end.value)
        except asyncio.CancelledError:
            super().cancel()
        except (KeyboardInterrupt, SystemExit) as end:
            self.set_exception(end)
            raise
        except BaseException as end:  # noqa: BLE001  # raised to whoever awaits this
            self.set_exception(end)
        else:
            self._wait_for(awaited)
        finally:
            asyncio._leave_task(loop, self)  # type: ignore[arg-type]  # documented

    def _wait_for(self, awaited: Any) -> None:
        if getattr(awaited, "_asyncio_future_blocking", None):
            awaited._asyncio_future_blocking = False  # the protocol of `await`
            awaited.add_done_callback(self._wake, context=self._context)
            self._fut_waiter = awaited
            if self._must_cancel and awaited.cancel(self._cancel_message):
                self._must_cancel = False
        elif awaited is None:
            self.get_loop().call_soon(self._step, context=self._context)
        else:
            error = RuntimeError(f"cannot wait for {awaited!r}")
            self.get_loop().call_soon(self._step, error, context=self._context)

    def _wake(self, future: "asyncio.Future[Any]") -> None:
        try:
            future.result()
        except BaseException as error:  # noqa: BLE001  # raised in the work
            self._step(error)
        else:
            self._step()
