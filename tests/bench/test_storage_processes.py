"""Two replicas that race 200 times, and 5,000 calls a second that end with a SIGTERM."""

import pytest

from tests.integration.test_storage_processes import call_and_end, race
from tests.support.bench import machine

pytestmark = [pytest.mark.anyio, pytest.mark.bench]

ROUNDS = 200
PER_S = 5000


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "if-match"])
async def test_two_hundred_races(database_url: str, conditional: bool) -> None:
    await race(database_url, ROUNDS, conditional=conditional)
    print(f"\n{machine()}\n{ROUNDS} races of two processes, conditional={conditional}: no version lost, no gap")


async def test_calls_accepted_and_lost(database_url: str) -> None:
    accepted, refused, per_s = await call_and_end(database_url, PER_S, 5.0)
    print(f"\n{machine()}\n{accepted} calls accepted, {per_s:.0f}/s, {refused} refused, 0 lost at SIGTERM")
