"""Single flight: any number of callers of one key share one load.

The load is a task of its own, so a cancelled caller harms nobody; when the last waiter has
left, it is cancelled, unless somebody asked for it to be kept. `doom` detaches a load whose answer
a change has made old: those who wait still get it, later callers start a new one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0
        self.kept = False


class Flights(Generic[T]):
    """Loads under way, by key."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()

    def __contains__(self, key: str) -> bool:
        """Whether a load is under way that a caller would join."""
        return key in self._by_key

    async def load(self, key: str, loader: Callable[[], Awaitable[T]], *, keep: bool = False) -> T:
        """The result of the load under way, or of a new one. Raises what the loader raises.

        With `keep` the load goes on to its end even when everybody has left.
        """
        flight = self._by_key.get(key)
        # A load that has ended may not have landed yet: its callback comes one turn of the loop later.
        # Whoever refuses what it brought and asks again must not be given it for ever.
        if flight is None or flight.task.done():
            flight = _Flight(asyncio.create_task(_run(loader), name=f"load {key}"))
            self._by_key[key] = flight
            self._tasks.add(flight.task)
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiting += 1
        flight.kept = flight.kept or keep
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.waiting == 0 and not flight.kept and not flight.task.done():
                self._detach(key, flight.task)
                flight.task.cancel()

    def doom(self, key: str) -> None:
        """Lets later callers of `key` start anew."""
        self._by_key.pop(key, None)

    def doom_all(self) -> None:
        self._by_key.clear()

    async def close(self) -> None:
        """Cancels what is under way and waits for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _detach(self, key: str, task: asyncio.Task[T]) -> None:
        """Like `doom`, for one load: `key` may be another's by now."""
        flight = self._by_key.get(key)
        if flight is not None and flight.task is task:
            del self._by_key[key]

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        self._detach(key, task)
        if not task.cancelled():
            task.exception()  # every waiter may have gone; an unread error would only be noise


async def _run(loader: Callable[[], Awaitable[T]]) -> T:
    return await loader()
