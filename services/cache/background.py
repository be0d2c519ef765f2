"""Work of the cache that nobody waits for: refreshes, fills of L2, the warm start."""

import asyncio
from collections.abc import Coroutine

import structlog

from services import metrics

log = structlog.get_logger(__name__)


class Background:
    """At most `tasks_max` tasks; `close` gives them `grace_s` and ends the rest."""

    def __init__(self, tasks_max: int) -> None:
        self._tasks_max = tasks_max
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return len(self._tasks) >= self._tasks_max

    def start(self, work: Coroutine[object, object, object]) -> None:
        """For callers that have asked `is_full`."""
        task = asyncio.create_task(_supervised(work), name="cache in the background")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, grace_s: float = 0.0) -> None:
        if self._tasks and grace_s:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _supervised(work: Coroutine[object, object, object]) -> None:
    try:
        await work
    except Exception:
        metrics.cache_background_failures.inc()
        log.exception("work of the cache in the background failed")
