"""Trouble for real adapters: wrappers that fail, wait or hang when told to, and a disk that is too small."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.failures import Unavailable
from services.models import Change
from services.ports import CatalogSnapshot, ChangeReader, Position, SecondTier


class TroubledReader:
    """A `ChangeReader` whose tails fail while `failing` and wait while `gate` is clear; `tails` counts them."""

    def __init__(self, inner: ChangeReader) -> None:
        self._inner = inner
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.tails = 0

    async def head(self) -> Position:
        return await self._inner.head()

    async def tail(self, after: int, limit: int) -> list[Change]:
        self.tails += 1
        await self.gate.wait()
        if self.failing:
            raise Unavailable("the database is away")
        return await self._inner.tail(after, limit)


class LosingReader:
    """A `ChangeReader` that never gets an answer to its next `lost` tails, as over a dead connection."""

    def __init__(self, inner: ChangeReader, lost: int) -> None:
        self._inner = inner
        self._lost = lost

    async def head(self) -> Position:
        return await self._inner.head()

    async def tail(self, after: int, limit: int) -> list[Change]:
        if self._lost:
            self._lost -= 1
            await asyncio.Event().wait()
        return await self._inner.tail(after, limit)


class WatchedTier:
    """A `SecondTier` that remembers the keys it was asked for; `forged` answers take the place of its own."""

    def __init__(self, inner: SecondTier) -> None:
        self._inner = inner
        self.asked: list[str] = []
        self.kept: dict[str, bytes] = {}
        self.forged: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        return self.forged.get(key) or await self._inner.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self.kept[key] = value
        await self._inner.put(key, value, ttl_s)

    async def close(self) -> None:
        await self._inner.close()


class BrokenSink:
    """Follows the log and fails at every row it is given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def apply(self, changes: Sequence[Change]) -> None:
        self.given += [change.seq for change in changes]
        raise RuntimeError("this follower is broken")

    def restart(self, snapshot: CatalogSnapshot) -> None:
        raise RuntimeError(f"this follower cannot begin again at {snapshot.position.id}")


@contextmanager
def small_disk(at: Path, size_kb: int) -> Iterator[Path]:
    """A file system of `size_kb` at `at`; skips the test where this user may not mount one."""
    at.mkdir()
    made = os.getuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", at], stderr=subprocess.DEVNULL
    )
    if not made:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield at
    finally:
        subprocess.check_call(["umount", "--lazy", at])
