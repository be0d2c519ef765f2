"""Whether the blob store answers, for whoever asks often."""

import asyncio
from collections.abc import Callable

from services.failures import Unavailable
from services.ports import BlobStore

# Probes come every few seconds from every side, and each request to S3 is paid for.
FRESH_S = 5.0
_ANSWER_S = 2.0


class BlobPulse:
    """Asks a blob store at most once in `FRESH_S`, however many want to know. `clock` counts seconds."""

    def __init__(self, blobs: BlobStore, clock: Callable[[], float]) -> None:
        self._blobs = blobs
        self._clock = clock
        self._asking = asyncio.Lock()
        self._trouble = ""
        self._until_s: float | None = None

    async def trouble(self) -> str:
        """What keeps it from answering, empty when it answers. Takes at most `_ANSWER_S`."""
        async with self._asking:
            if self._until_s is None or self._clock() >= self._until_s:
                self._trouble = await self._ask()
                self._until_s = self._clock() + FRESH_S
        return self._trouble

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._blobs.ping()
        except Unavailable as error:
            return error.message
        except TimeoutError:
            return f"no answer in {_ANSWER_S:g} s"
        return ""
