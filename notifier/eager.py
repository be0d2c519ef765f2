"""Tasks that make their first step where they are started, as those of Python 3.12 can (`eager_start`).

A task that is made in a callback begins in the next turn of the loop. For a call whose answer is at hand that turn, and
what it takes to get there, costs more than the call. asyncio lets tasks be implemented by others: what it must be told
is in its documentation ("Extending", https://docs.python.org/3/library/asyncio-extending.html); what a task must do is
what `asyncio.tasks.Task` does in Python.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def start_eagerly(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> "asyncio.Task[T] | EagerTask[T]":
    """A task that may be done already; started inside of another task, it begins in the next turn as any other.

    `loop` is the running one: to find it out anew is a system call in Python 3.11.
    """
    if asyncio.current_task(loop) is not None:
        return loop.create_task(work)
    return EagerTask(work, loop)


class EagerTask(asyncio.Future[T], Generic[T]):
    """To be made in a callback of the running loop, where no task is current."""

    __slots__ = (
        "_cancel_message", "_cancels_requested", "_context", "_fut_waiter", "_must_cancel", "_work",
    )  # fmt: skip

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._fut_waiter: asyncio.Future[Any] | None = None  # this one and the next by the names that anyio knows
        self._must_cancel = False
        self._cancel_message: Any = None
        self._cancels_requested = 0
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
