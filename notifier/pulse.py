"""Heartbeats of all streams: one timer, which visits a part of them at a time."""

import asyncio

from notifier.stream import Stream

_PARTS = 20


class Pulse:
    """Each stream that is added gets a heartbeat every `interval_s`; `close` ends the task."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._parts: list[dict[Stream, None]] = [{} for _ in range(_PARTS)]
        self._part_of: dict[Stream, int] = {}
        self._at = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, stream: Stream) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="heartbeats")
        part = (self._at - 1) % _PARTS  # visited just now: its next turn is almost a whole interval away
        self._part_of[stream] = part
        self._parts[part][stream] = None

    def discard(self, stream: Stream) -> None:
        part = self._part_of.pop(stream, None)
        if part is not None:
            del self._parts[part][stream]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s / _PARTS)
            for stream in tuple(self._parts[self._at]):
                stream.beat()
            self._at = (self._at + 1) % _PARTS
