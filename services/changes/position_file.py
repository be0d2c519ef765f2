"""The newest applied position, kept beside the data, so that a restore between two runs is noticed."""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec
import structlog

from services.changes.log import ChangeFeed
from services.ports import Position

KEEP_S = 2.0

log = structlog.get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    position: str


class PositionFile:
    """Written every `KEEP_S` while the feed moves, and on `close`.

    Replicas of one data folder share it: whichever wrote last, the place is one of the log's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def read(self) -> Position | None:
        """None where there is none, or a damaged one: then a restore is not noticed."""
        try:
            return Position.parse(msgspec.json.decode(self._path.read_bytes(), type=_Kept).position)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the kept position cannot be read", path=str(self._path), error=str(error))
            return None

    def start(self, feed: ChangeFeed) -> None:
        self._task = asyncio.create_task(self._keep(feed), name="keep the position")

    async def close(self) -> None:
        self._ending.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _keep(self, feed: ChangeFeed) -> None:
        while not self._ending.is_set():
            await asyncio.to_thread(self._write, feed.position.id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await self._ending.wait()
        await asyncio.to_thread(self._write, feed.position.id)

    def _write(self, id_: str) -> None:
        if id_ == self._written:
            return
        fresh = self._path.with_suffix(f".{os.getpid()}.tmp")  # another replica may be writing, too
        try:
            fresh.write_bytes(msgspec.json.encode(_Kept(id_)))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("the position cannot be kept", path=str(self._path), error=str(error))
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
        else:
            self._written = id_
