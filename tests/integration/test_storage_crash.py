"""A publisher that is killed leaves a whole store: what was answered is there, nothing is there by half."""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from services.storage.sql import SqlStore
from tests.support.drafts import assert_chained
from tests.support.publisher import blobs_of, published_once_more

pytestmark = pytest.mark.anyio

ROUNDS = 30


async def test_a_publisher_killed_at_any_moment_leaves_whole_versions_and_readable_blobs(
    tmp_path: Path, database_url: str
) -> None:
    chance = random.Random(1)
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.publisher", tmp_path, database_url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert publisher.stdin is not None
    assert publisher.stdout is not None
    rows = 0
    try:
        for round_ in range(ROUNDS):
            publisher.stdin.write(b"\n")
            async with asyncio.timeout(5):
                child = int(await publisher.stdout.readline())
                if round_ % 2:  # in the other rounds it is killed while it opens the store, as often as not
                    await published_once_more(tmp_path)
                await asyncio.sleep(chance.uniform(0.0, 0.12))  # time itself: when the kill falls is the test
                os.kill(child, signal.SIGKILL)
                assert await publisher.stdout.readline() == b"dead\n"
            if (tmp_path / "acknowledged").exists():
                rows = await _assert_whole(tmp_path, database_url)
    finally:
        publisher.stdin.close()
        async with asyncio.timeout(5):
            await publisher.wait()
    assert rows >= ROUNDS, "the rounds were too short to have published anything"


async def _assert_whole(data_dir: Path, url: str) -> int:
    store = await SqlStore.open(url)
    blobs = blobs_of(store, data_dir)
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
