"""What waits to be written to one connection, in order, at most `messages_max`."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable


class Outbox:
    """Many tasks put, one task drains. Nothing that was put is ever dropped while the connection lives."""

    def __init__(self, messages_max: int = 128) -> None:
        self._messages_max = messages_max
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()
        self._progress = asyncio.Condition()
        self._put_count = 0
        self._sent_count = 0

    async def put(self, text: str) -> int:
        """Waits for room, then appends; returns the message's number, for `sent`."""
        while len(self._waiting) >= self._messages_max:
            async with self._progress:
                await self._progress.wait()
        self._waiting.append(text)
        self._put_count += 1
        self._news.set()
        return self._put_count

    async def flushed(self) -> None:
        """Waits until all that has been put by now was accepted by `send`."""
        await self.sent(self._put_count)

    async def sent(self, number: int) -> None:
        """Waits until that message, and all before it, were accepted by `send`."""
        while self._sent_count < number:
            async with self._progress:
                await self._progress.wait()

    async def drain(self, send: Callable[[str], Awaitable[None]], stall_s: float) -> None:
        """Sends for ever. Raises TimeoutError when one send blocks for `stall_s`, and what `send` raises."""
        while True:
            while self._waiting:
                async with asyncio.timeout(stall_s):
                    await send(self._waiting[0])
                self._waiting.popleft()
                self._sent_count += 1
                async with self._progress:
                    self._progress.notify_all()
            self._news.clear()
            await self._news.wait()
