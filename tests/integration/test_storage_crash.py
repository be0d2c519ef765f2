"""A publisher that is killed leaves a whole store: what was answered is there, nothing is there by half."""

from pathlib import Path

import pytest

from tests.support.aws import is_place
from tests.support.crash import kill_publishers

pytestmark = pytest.mark.anyio

ROUNDS = 30
# The emulator is slow; `tests/bench/test_storage_crash.py` has a hundred rounds on each.
ROUNDS_ON_AWS = 12


async def test_a_publisher_killed_at_any_moment_leaves_whole_versions_and_readable_blobs(
    tmp_path: Path, store_url: str
) -> None:
    rounds = ROUNDS_ON_AWS if is_place(store_url) else ROUNDS
    left = await kill_publishers(tmp_path, store_url, rounds)
    assert left.rows >= rounds, "the rounds were too short to have published anything"
