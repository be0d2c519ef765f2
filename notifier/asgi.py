"""A wire over ASGI's `send`, for servers whose transports cannot be written to directly."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from notifier.close_codes import CloseCode
from notifier.wire import BATCH_BYTES, BEATS_UNANSWERED_MAX, CLOSE_S, Encode, Peer


class AsgiWire:
    """A queue of whatever `send` takes; its task is that of `serve`.

    `to_message` makes what `send` takes of one of the stream's own messages. `ping` is one that makes a client say
    something, sent behind every heartbeat: ASGI has no pings. Without it clients are not expected to speak.
    """

    def __init__(
        self,
        peer: Peer,
        send: Callable[[Any], Awaitable[None]],
        encode: Encode,
        to_message: Callable[[bytes], Any],
        ping: bytes | None = None,
    ) -> None:
        self.encode = encode
        self.close: CloseCode | None = None
        self._peer = peer
        self._send = send
        self._to_message = to_message
        self._ping = ping
        self._beats = 0  # since the client was heard last
        self._waiting: deque[Any] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._news = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._deadline: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[Any] | None = None

    def write(self, payload: Any) -> None:
        for message in payload if isinstance(payload, tuple) else (payload,):
            self._waiting.append(message)
            self._waiting_bytes += len(message)
        self._news.set()
        if self._waiting_bytes > BATCH_BYTES and not self._is_paused:
            self._is_paused = True
            self._peer.paused()

    def post(self, message: bytes) -> None:
        self.write(self._to_message(message))

    def beat(self, message: bytes) -> bool:
        if self._ping is None:
            self.post(message)
            return True
        self._beats += 1
        if self._beats > BEATS_UNANSWERED_MAX:
            return False
        self.post(message)
        self.post(self._ping)
        return True

    def heard(self) -> None:
        self._beats = 0

    def finish(self, close: CloseCode) -> None:
        self.close = close
        self._news.set()
        if self._draining is not None:
            self._deadline = asyncio.get_running_loop().call_later(CLOSE_S, self._draining.cancel)

    def hold_reading(self) -> None:
        self._may_read.clear()

    def go_on_reading(self) -> None:
        self._may_read.set()

    async def readable(self) -> None:
        await self._may_read.wait()

    async def serve(self, reading: Coroutine[Any, Any, None]) -> Sequence[BaseException | None]:
        """Reads and sends until either ends, and then the stream is lost. Answers what became of the reading and of
        the sending, None for one that ended by itself."""
        parts = [asyncio.create_task(reading), asyncio.create_task(self._drain())]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for part in parts:
                part.cancel()
            ends = await asyncio.gather(*parts, return_exceptions=True)
            self._peer.lost()
        return ends

    async def _drain(self) -> None:
        """Sends until `finish` was called and nothing is left, or for as long as that may take. Raises what
        `send` raises."""
        self._draining = asyncio.current_task()
        while True:
            while self._waiting:
                message = self._waiting[0]
                await self._send(message)
                self._waiting.popleft()
                self._waiting_bytes -= len(message)
                if self._is_paused and self._waiting_bytes < BATCH_BYTES // 4:
                    self._is_paused = False
                    self._peer.resumed()
            if self.close is not None:
                break
            self._news.clear()
            await self._news.wait()
        if self._deadline is not None:
            self._deadline.cancel()
