"""Replicas as processes of their own on one database: racing publishes, and calls that end with a SIGTERM.

`tests/bench/test_storage_processes.py` does the same for longer.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.storage.sql import SqlStore
from tests.support.drafts import assert_chained
from tests.support.stores import open_store

pytestmark = pytest.mark.anyio

START_S = 90.0
ANSWER_S = 20.0


@asynccontextmanager
async def process(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Answers when it has said that it is ready; ended with the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"tests.support.{module}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert await line_of(started, START_S) == "ready"
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def line_of(running: asyncio.subprocess.Process, timeout_s: float = ANSWER_S) -> str:
    assert running.stdout is not None
    async with asyncio.timeout(timeout_s):
        return (await running.stdout.readline()).decode().strip()


async def race(url: str, rounds: int, *, conditional: bool) -> None:
    """Two processes publish the same skill at once, again and again."""
    active = "-"
    async with process("racer", url, "one") as one, process("racer", url, "other") as other:
        versions: list[int] = []
        for _ in range(rounds):
            for each in (one, other):
                assert each.stdin is not None
                each.stdin.write(f"{active}\n".encode())
            answers = [(await line_of(each)).split() for each in (one, other)]
            won = sorted(answer for answer in answers if answer[0] == "201")
            refused = [answer for answer in answers if answer == ["409"]]
            expected = (1, 1) if conditional and active != "-" else (2, 0)
            assert (len(won), len(refused)) == expected, answers
            versions += sorted(int(version) for _, version, _ in won)
            if conditional:
                active = max(won, key=lambda answer: int(answer[1]))[2]
    assert versions == list(range(1, len(versions) + 1)), "a number twice, or a gap"
    store = await open_store(url)
    try:
        assert await assert_chained(store) == len(versions)
    finally:
        await store.close()


async def call_and_end(url: str, per_s: int, duration_s: float) -> tuple[int, int, float, float]:
    """Calls for a while, SIGTERM, and what is in the database then: accepted, refused, calls a second, and
    microseconds of CPU for each."""
    async with process("called", url, str(per_s)) as running:
        await asyncio.sleep(duration_s)  # time itself: the rate is the test
        running.terminate()
        found = re.fullmatch(r"accepted (\d+) refused (\d+) in ([\d.]+) cpu ([\d.]+)", await line_of(running, 60))
        assert found is not None
        assert await running.wait() == 0
    accepted, refused, took_s, cpu_s = int(found[1]), int(found[2]), float(found[3]), float(found[4])
    store = await SqlStore.open(url)
    try:
        async with store.reading() as connection:
            rows = (
                await connection.exec_driver_sql("SELECT count(*), count(DISTINCT arguments) FROM invocations")
            ).one()
        assert tuple(rows) == (accepted, accepted), "accepted and lost"
        assert sum(usage.calls for usage in await store.usage("main/calc")) == accepted
    finally:
        await store.close()
    return accepted, refused, accepted / took_s, cpu_s / accepted * 1e6


@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "if-match"])
async def test_of_two_processes_that_publish_at_once_no_version_is_lost(store_url: str, conditional: bool) -> None:
    await race(store_url, 10, conditional=conditional)


async def test_every_call_that_was_accepted_is_logged_when_the_process_is_told_to_end(database_url: str) -> None:
    accepted, _, _, _ = await call_and_end(database_url, 1000, 1.0)
    assert accepted > 0
