import asyncio
from pathlib import Path

import pytest

from services import metrics
from services.execution import Sandbox, WorkerPool
from services.failures import Exhausted, Forbidden, Invalid, TooLarge, ToolFailed, Unavailable
from tests.support.workers import bounded, family, is_alive, job, running_pool, until, write_package

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


async def test_two_calls_run_in_one_process_that_loaded_the_script_once(package: Path) -> None:
    reused = metrics.worker_calls_reused._value.get()
    async with running_pool() as pool:
        first = await bounded(pool.call(job(package, "whoami")))
        second = await bounded(pool.call(job(package, "whoami")))
        (worker,) = pool.stats()
    assert first.result == second.result
    assert second.result["loads"] == 1
    assert first.worker_pid == second.worker_pid == worker.pid
    assert (first.warm, second.warm) == (False, True)
    assert (worker.calls, worker.loads) == (2, 1)
    assert worker.rss_bytes > 1_000_000
    assert metrics.worker_calls_reused._value.get() == reused + 1


async def test_functions_of_one_script_share_a_worker_and_other_packages_do_not(package: Path, tmp_path: Path) -> None:
    other = write_package(tmp_path / "other")
    async with running_pool() as pool:
        pids = [
            (await bounded(pool.call(job(folder, name)))).worker_pid
            for folder, name in ((package, "whoami"), (package, "echo"), (other, "echo"))
        ]
    assert pids[0] == pids[1] != pids[2]


async def test_arguments_and_results_keep_every_json_value(package: Path) -> None:
    value = {"text": "你好\x00\U0001f600", "list": [1, 2.5, None, True, {}], "big": 10**30, "long": "y" * 500_000}
    async with running_pool() as pool:
        outcome = await bounded(pool.call(job(package, "echo", value)))
    assert outcome.result == value


async def test_what_a_tool_prints_is_its_logs_and_not_its_answer(package: Path) -> None:
    async with running_pool() as pool:
        outcome = await bounded(pool.call(job(package, "shout")))
        after = await bounded(pool.call(job(package, "echo", {"a": 1})))
    assert outcome.result == "said"
    assert outcome.logs == "to stdout\nto stderr\nbytes\n"
    assert (after.result, after.logs) == ({"a": 1}, "")
    assert after.worker_pid == outcome.worker_pid


async def test_logs_are_cut_at_64_kib_and_say_so(package: Path) -> None:
    async with running_pool() as pool:
        outcome = await bounded(pool.call(job(package, "flood", {"lines": 100})))
    assert len(outcome.logs) < 66 * 1024
    assert outcome.logs.endswith("\n[36864 bytes more]")


async def test_a_process_per_call_reads_arguments_on_stdin_and_prints_its_result(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "package",
        sum_py="import json, sys, extra\na = json.load(sys.stdin)\nprint(json.dumps({'sum': a['x'] + extra.ONE}))",
        extra_py="ONE = 1",
        words_sh='cat >/dev/null; echo "$1 words"; echo noise >&2',
        bad_sh="echo what went wrong >&2; exit 3",
    )
    async with running_pool() as pool:
        summed = await bounded(pool.call(job(package, ["python", "scripts/sum.py"], {"x": 41})))
        words = await bounded(pool.call(job(package, ["sh", "scripts/words.sh", "two"])))
        with pytest.raises(ToolFailed, match="exit status 3: what went wrong") as failed:
            await bounded(pool.call(job(package, ["sh", "scripts/bad.sh"])))
    assert summed.result == {"sum": 42}
    assert (words.result, words.logs) == ("two words\n", "noise\n")
    assert summed.worker_pid == words.worker_pid
    assert failed.value.code == "tool_failed"


async def test_a_full_line_refuses_and_the_waiting_calls_are_served(package: Path) -> None:
    async with running_pool(workers_max=1, queue_max=2) as pool:
        calls = [asyncio.create_task(pool.call(job(package, "nap", {"s": 0.3}))) for _ in range(3)]
        await until(lambda: pool.waiting == 2)
        with pytest.raises(Exhausted) as refused:
            await bounded(pool.call(job(package, "echo")))
        calls[2].cancel()
        await asyncio.wait(calls[2:], timeout=5)
        assert pool.waiting == 1
        await bounded(asyncio.gather(*calls[:2]))
    assert refused.value.code == "queue_full"


async def test_a_call_does_not_wait_for_a_worker_forever(package: Path) -> None:
    async with running_pool(workers_max=1, queue_wait_s=0.05) as pool:
        long = asyncio.create_task(pool.call(job(package, "nap", {"s": 0.4})))
        await until(lambda: bool(pool.stats()))
        with pytest.raises(Exhausted) as refused:
            await bounded(pool.call(job(package, "echo")))
        await bounded(long)
        assert pool.waiting == 0
    assert refused.value.code == "queue_timeout"


async def test_a_tenant_does_not_wait_for_another_tenants_flood(package: Path) -> None:
    order: list[str] = []
    async with running_pool(workers_max=1) as pool:

        async def call(tenant: str) -> None:
            await pool.call(job(package, "nap", {"s": 0.01}, tenant=tenant))
            order.append(tenant)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(call("flood"))
            await until(lambda: pool.waiting == 19)
            for _ in range(3):
                group.create_task(call("other"))
    assert [at for at, tenant in enumerate(order) if tenant == "other"][-1] <= 7


async def test_an_idle_worker_of_another_key_makes_room(package: Path, tmp_path: Path) -> None:
    other = write_package(tmp_path / "other")
    async with running_pool(workers_max=1) as pool:
        first = await bounded(pool.call(job(package, "echo")))
        second = await bounded(pool.call(job(other, "echo")))
        assert [worker.pid for worker in pool.stats()] == [second.worker_pid]
    assert first.worker_pid != second.worker_pid


async def test_a_worker_is_recycled_after_its_calls(package: Path) -> None:
    async with running_pool(recycle_calls=3) as pool:
        pids = [(await bounded(pool.call(job(package, "echo")))).worker_pid for _ in range(7)]
    assert [len(set(pids[:3])), len(set(pids[3:6])), len(set(pids))] == [1, 1, 3]


async def test_an_idle_worker_ends_after_a_while(package: Path) -> None:
    async with running_pool(idle_s=0.05) as pool:
        await bounded(pool.call(job(package, "echo")))
        await until(lambda: not pool.stats())


async def test_close_leaves_no_process_and_refuses_what_comes_later(package: Path) -> None:
    async with running_pool(workers_max=2) as pool:
        await bounded(pool.call(job(package, "echo")))
        hanging = asyncio.create_task(pool.call(job(package, "hang", memory_mb=300)))
        waiting = [asyncio.create_task(pool.call(job(package, "hang", memory_mb=300))) for _ in range(2)]
        await until(lambda: len(pool.stats()) == 2 and len(family(pool.stats()[1].pid)) >= 4)
        pids = [pid for worker in pool.stats() for pid in family(worker.pid)]
        await bounded(pool.close())
        assert pool.stats() == []
        await until(lambda: not any(is_alive(pid) for pid in pids))
        for call in (hanging, *waiting):
            with pytest.raises(Unavailable, match="closing"):
                await bounded(call)
        with pytest.raises(Unavailable, match="closing"):
            await pool.call(job(package, "echo"))
    assert len(pids) >= 7


async def test_without_a_sandbox_nothing_runs(package: Path, tmp_path: Path) -> None:
    binary = tmp_path / "bwrap"
    binary.write_text('#!/bin/sh\nexec "$@"\n')
    binary.chmod(0o755)
    sandbox = Sandbox(binary)
    await sandbox.probe()
    pool = WorkerPool(sandbox, workers_max=1, queue_max=1)
    with pytest.raises(Unavailable, match="does not hold") as refused:
        await pool.call(job(package, "echo"))
    assert refused.value.code == "no_sandbox"
    await pool.close()


async def test_what_the_pool_refuses_starts_no_worker(package: Path) -> None:
    async with running_pool() as pool:
        with pytest.raises(Forbidden) as refused:
            await pool.call(job(package, "echo", network=True))
        assert refused.value.code == "network_not_allowed"
        with pytest.raises(TooLarge):
            await pool.call(job(package, "echo", {"a": "x" * 1024 * 1024}))
        with pytest.raises(Invalid):
            await pool.call(job(package, "echo", {"a": "\ud800"}))
        with pytest.raises(Invalid):
            await pool.call(job(package, ["python", "../x.py:run"]))
        assert pool.stats() == []
