"""Overhead of a warm call through the sandboxed pool against concurrent.futures.ProcessPoolExecutor."""

import asyncio
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import job, running_pool, write_package

pytestmark = [pytest.mark.anyio, pytest.mark.bench]

_ROUNDS = 5
_CALLS = {200: 1500, 100_000: 150}


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


async def _microseconds(call: Callable[[], Awaitable[Any]], calls: int) -> list[float]:
    spent = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        await call()
        spent.append((time.perf_counter_ns() - began) / 1000)
    return spent


async def test_overhead_of_a_warm_call(tmp_path: Path, anyio_backend: tuple[str, dict[str, bool]]) -> None:
    package = write_package(tmp_path / "package")
    loop = asyncio.get_running_loop()
    executor = ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"))
    rounds: dict[tuple[str, int], list[list[float]]] = {}
    async with running_pool(workers_max=1, recycle_calls=10**9) as pool:
        cold_ms = (await pool.call(job(package, "echo"))).duration_ms
        for _ in range(_ROUNDS):
            for size, calls in _CALLS.items():
                arguments = {"x": "y" * size}
                work = job(package, "echo", arguments)
                ours = await _microseconds(lambda work=work: pool.call(work), calls)  # type: ignore[misc]
                theirs = await _microseconds(
                    lambda arguments=arguments: loop.run_in_executor(executor, echo, arguments),  # type: ignore[misc]
                    calls,
                )
                rounds.setdefault(("pool", size), []).append(ours)
                rounds.setdefault(("ProcessPoolExecutor", size), []).append(theirs)
        assert len(pool.stats()) == 1
    executor.shutdown()
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"
    print(f"\n{where}, Python {platform.python_version()}, {anyio_backend}; cold start {cold_ms:.0f} ms")
    print(f"{'':22}{'bytes':>8}{'p50 us':>9}{'p99 us':>9}   p50 of {_ROUNDS} rounds")
    for (name, size), measured in rounds.items():
        everything = sorted(value for values in measured for value in values)
        medians = [statistics.median(values) for values in measured]
        print(
            f"{name:22}{size:>8}{statistics.median(everything):>9.0f}{everything[len(everything) * 99 // 100]:>9.0f}"
            f"   {min(medians):.0f} to {max(medians):.0f}"
        )
    ours_p50, theirs_p50 = (
        min(statistics.median(values) for values in rounds[name, 200]) for name in ("pool", "ProcessPoolExecutor")
    )
    assert ours_p50 < theirs_p50
