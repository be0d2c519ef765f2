"""Publishers that are killed with SIGKILL, round after round, and the look at what they leave."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from services.failures import Unavailable
from tests.support.aws import is_place
from tests.support.drafts import assert_chained
from tests.support.publisher import published_once_more
from tests.support.stores import everything_in, open_blobs, open_store

# Between two looks on DynamoDB and S3: a look reads everything, and the emulator is slow.
_ROUNDS_A_LOOK = 6
# Nobody writes any more, and S3 tells the time of an object in whole seconds.
_NEWER_THAN_ANY_S = -60.0
_LOOKS_MAX = 5


class Left(NamedTuple):
    """Rows of the log; blobs that no version named, which the sweep took."""

    rows: int
    unnamed: int


async def kill_publishers(data_dir: Path, url: str, rounds: int) -> Left:
    """Answers what is there in the end; fails when something is there by half, or is still there unnamed
    after a sweep."""
    chance = random.Random(1)
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.publisher", data_dir, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert publisher.stdin is not None
    assert publisher.stdout is not None
    rows = 0
    try:
        for round_ in range(rounds):
            publisher.stdin.write(b"\n")
            async with asyncio.timeout(60):
                child = int(await publisher.stdout.readline())
                if round_ % 2:  # in the other rounds it is killed while it opens the store, as often as not
                    await published_once_more(data_dir)
                await asyncio.sleep(chance.uniform(0.0, 0.12))  # time itself: when the kill falls is the test
                os.kill(child, signal.SIGKILL)
                assert await publisher.stdout.readline() == b"dead\n"
            looks = not is_place(url) or (round_ + 1) % _ROUNDS_A_LOOK == 0 or round_ + 1 == rounds
            if looks and (data_dir / "acknowledged").exists():
                rows = await _on_a_busy_machine(lambda: _assert_whole(data_dir, url))
    finally:
        os.killpg(publisher.pid, signal.SIGKILL)  # its children as well, if a round was given up
        async with asyncio.timeout(5):
            await publisher.wait()
    return Left(rows, await _on_a_busy_machine(lambda: _swept(data_dir, url)))


async def _on_a_busy_machine(look: Callable[[], Awaitable[int]]) -> int:
    """What is there is what is asked, not how soon the store answers."""
    for _ in range(_LOOKS_MAX - 1):
        with suppress(Unavailable):
            return await look()
    return await look()


async def _assert_whole(data_dir: Path, url: str) -> int:
    store = await open_store(url)
    blobs = await open_blobs(store, url, data_dir)
    try:
        rows = await assert_chained(store)
        alpha, beta = await store.versions("main/alpha"), await store.versions("main/beta")
        assert len(alpha) == len(beta)
        listed = {entry.sha256 for version in (*alpha, *beta) for entry in version.manifest}
        for sha256 in listed:
            await blobs.get(sha256)
        acknowledged = data_dir / "acknowledged"
        # The last line may be cut: the publisher was killed while it wrote it.
        answered = acknowledged.read_text().split("\n")[:-1] if acknowledged.exists() else []
        assert set(answered) <= listed
    finally:
        await store.close()
        await blobs.close()
    return rows


async def _swept(data_dir: Path, url: str) -> int:
    """Sweeps, and what is left are the blobs that versions name, no other and no temporary file."""
    store = await open_store(url)
    blobs = await open_blobs(store, url, data_dir)
    try:
        swept = await blobs.sweep(store.blobs_in_use, _NEWER_THAN_ANY_S)
        named = {sha256 async for sha256 in store.blobs_in_use()}
        assert await everything_in(blobs, store, data_dir) == named
    finally:
        await store.close()
        await blobs.close()
    return swept.blobs
