"""A deterministic asyncio loop: virtual time, and the next callback chosen by a seed.

Every run of one seed is the same run, and runs of different seeds order what may happen in any
order differently. Nothing here touches a socket or a thread. A *host* is a set of callbacks that
stop together, as a process does under SIGSTOP or SIGKILL: whatever runs in a context where `HOST`
is set, and all that it starts.

It overrides `_run_once`, which is private: `_PINNED` names the versions whose source was read.
"""

import asyncio
import contextvars
import heapq
import random
import sys
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

_PINNED = ((3, 11),)
# What one callback costs, so that no two of them happen at the same moment.
_STEP_S = 1e-6
_STEPS_MAX = 200_000

HOST: contextvars.ContextVar[str] = contextvars.ContextVar("host", default="world")

T = TypeVar("T")


class NoEnd(RuntimeError):
    """The run can go on no more, or goes on for ever."""


class SimLoop(asyncio.base_events.BaseEventLoop):
    """`freeze` holds a host's callbacks until `thaw`; timers go on meanwhile, as `CLOCK_BOOTTIME` does."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _timer_cancelled_count: int

    def __init__(self, seed: int) -> None:
        if sys.implementation.name != "cpython" or sys.version_info[:2] not in _PINNED:
            raise RuntimeError(f"SimLoop overrides BaseEventLoop._run_once as of CPython {_PINNED}; compare, then pin")
        super().__init__()
        self._random = random.Random(f"loop {seed}")
        self._now_s = 1000.0
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self._kept: list[asyncio.Task[None]] = []
        self.steps = 0
        self.failures: list[str] = []
        self.set_exception_handler(lambda _, context: self.failures.append(str(context.get("exception", context))))

    def time(self) -> float:
        return self._now_s

    def spawn(self, host: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = contextvars.copy_context()
        context.run(HOST.set, host)
        return self.create_task(work, context=context)

    def start(self, host: str, work: Coroutine[Any, Any, None]) -> None:
        """`spawn` for what nobody awaits; its end is `run`'s to see to."""
        self._kept.append(self.spawn(host, work))

    def freeze(self, host: str) -> None:
        self._frozen.setdefault(host, [])

    def thaw(self, host: str) -> None:
        self._ready.extend(self._frozen.pop(host, ()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work`, then ends every task that is left, those of frozen hosts as well, and closes."""
        try:
            return self.run_until_complete(work)
        finally:
            self.steps = 0
            for host in list(self._frozen):
                self.thaw(host)
            self.run_until_complete(_end_all())
            ended = [task for task in self._kept if task.done() and not task.cancelled()]
            self.failures += [repr(error) for task in ended if (error := task.exception()) is not None]
            self.close()

    def _run_once(self) -> None:
        self.steps += 1
        if self.steps > _STEPS_MAX:
            raise NoEnd(f"no end after {_STEPS_MAX} callbacks")
        while self._scheduled and self._scheduled[0].cancelled():
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]  # private, see the module
        if not self._ready:
            if not self._scheduled:
                raise NoEnd("a deadlock: nothing is ready and nothing ever will be")
            self._now_s = max(self._now_s, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now_s:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]  # private, see the module
            self._ready.append(timer)
        if not self._ready:
            return
        self._ready.rotate(-self._random.randrange(len(self._ready)))
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        if self._frozen:
            host = handle._context.get(HOST, "world")  # type: ignore[attr-defined]  # private, see the module
            if host in self._frozen:
                self._frozen[host].append(handle)
                return
        self._now_s += _STEP_S
        handle._run()

    def _process_events(self, event_list: list[Any]) -> None:  # noqa: ARG002  # there are none
        raise RuntimeError("there is no input in a simulation")

    def _write_to_self(self) -> None:
        raise RuntimeError("there are no threads in a simulation")


async def _end_all() -> None:
    tasks = sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=lambda task: task.get_name())
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=10)
