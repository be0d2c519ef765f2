"""The hot set over a restart: names from a file, records from L2, validity from the log."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from services.cache.space import Space
from tests.support.cached import DEP, KEY, L2_KEY, SPACE, cached_replica, settled
from tests.support.chaos import TroubledReader

pytestmark = pytest.mark.anyio


async def test_what_was_read_most_is_warm_after_a_restart_if_it_still_holds(tmp_path: Path) -> None:
    hot_file = tmp_path / "hot.msgpack"

    async def load() -> bytes:
        return b"immutable"

    async with cached_replica(hot_file=hot_file) as before:
        before.log.commit("skill:main/x")
        await before.feed.tail()
        for _ in range(3):
            await before.read()
            await before.cache.get(SPACE, "blob", load)
            await before.cache.get(SPACE, "gone from l2", load)
        await before.cache.get(SPACE, "read once", load)
        await before.cache.get(Space("local", l2=False), "local", load)
        before.log.commit("skill:main/other")
        await settled()
    del before.second.kept[L2_KEY.replace(KEY, "gone from l2")]

    async with cached_replica(hot_file=hot_file, log=before.log) as after:
        after.second.forged |= before.second.kept
        after.cache.warm_up(after.log)
        async with asyncio.timeout(5):
            while after.cache.stats.warmed < 2:  # noqa: ASYNC110  # a file is read in a thread
                await asyncio.sleep(0.001)
        await after.feed.tail()
        asked = list(after.second.asked)
        assert await after.read() == (b"as of 1", "l1")
        assert (await after.cache.get(SPACE, "blob", load)).tier == "l1"
        assert (await after.cache.get(SPACE, "gone from l2", load)).tier == "l3"
        assert after.truth.loads == 0
        assert not any("read once" in key or "local" in key for key in asked)


async def test_what_changed_while_nobody_looked_is_not_warm(tmp_path: Path) -> None:
    hot_file = tmp_path / "hot.msgpack"
    async with cached_replica(hot_file=hot_file) as before:
        for _ in range(3):
            await before.read()
        await settled()
    before.log.commit(DEP, "skill:main/other")

    async with cached_replica(hot_file=hot_file, log=before.log) as after:
        reader = TroubledReader(after.log)
        after.second.forged |= before.second.kept
        after.cache.warm_up(reader)
        async with asyncio.timeout(5):
            while not reader.tails:  # noqa: ASYNC110  # a file is read in a thread
                await asyncio.sleep(0.001)
        await settled()
        assert after.cache.stats.warmed == 0
        assert await after.read() == (b"as of 2", "l3")


@pytest.mark.parametrize("content", [b"", b"garbage", msgspec.msgpack.encode({"spaces": [], "keys": [[7, "key", 1]]})])
async def test_a_file_that_is_none_of_ours_is_passed_over(tmp_path: Path, content: bytes) -> None:
    hot_file = tmp_path / "hot.msgpack"
    hot_file.write_bytes(content)
    async with cached_replica(hot_file=hot_file) as replica:
        replica.cache.warm_up(replica.log)
        assert await replica.read() == (b"as of 0", "l3")
        await replica.read()
    assert hot_file.read_bytes() != content
    assert os.listdir(tmp_path) == ["hot.msgpack"]  # noqa: PTH208  # a list, with nothing left beside it


async def test_a_folder_that_cannot_be_written_keeps_nothing_from_closing(tmp_path: Path) -> None:
    async with cached_replica(hot_file=tmp_path / "not there" / "hot.msgpack") as replica:
        await replica.read()
