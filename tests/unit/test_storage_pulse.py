import asyncio
from pathlib import Path

import pytest

from services.storage.blobs_local import LocalBlobs
from services.storage.pulse import FRESH_S, BlobPulse

pytestmark = pytest.mark.anyio


class CountedBlobs(LocalBlobs):
    pings = 0

    async def ping(self) -> None:
        self.pings += 1
        await super().ping()


async def test_the_store_is_asked_once_however_many_want_to_know_and_again_after_a_while(tmp_path: Path) -> None:
    blobs, now_s = CountedBlobs(tmp_path / "blobs"), 100.0
    pulse = BlobPulse(blobs, lambda: now_s)
    assert await asyncio.gather(*(pulse.trouble() for _ in range(20))) == [""] * 20
    assert blobs.pings == 1

    (tmp_path / "blobs").rmdir()
    now_s += FRESH_S - 0.1
    assert await pulse.trouble() == ""
    now_s += 0.1
    assert "No such file" in await pulse.trouble()
    (tmp_path / "blobs").mkdir()
    now_s += FRESH_S
    assert await pulse.trouble() == ""
    assert blobs.pings == 3
    await blobs.close()
