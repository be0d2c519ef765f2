"""Tasks that begin in callbacks, where nobody can wait for them, and have an owner all the same."""

import asyncio
from collections.abc import Callable, Coroutine


class OwnedTasks:
    """`close` cancels those that still run and waits for their ends."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[object, object, None], name: str) -> Callable[[], object]:
        """Answers the way to cancel it."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task.cancel

    async def close(self) -> None:
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)
