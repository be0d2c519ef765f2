import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services import metrics
from services.failures import ServiceError, Timeout, ToolFailed
from tests.support.workers import bounded, family, is_alive, job, processes_naming, running_pool, until, write_package

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package")


async def test_a_tool_that_raises_fails_with_its_own_words_and_stays_warm(package: Path) -> None:
    async with running_pool() as pool:
        before = await bounded(pool.call(job(package, "whoami")))
        with pytest.raises(ToolFailed, match="ValueError: no such luck") as failed:
            await bounded(pool.call(job(package, "fail")))
        with pytest.raises(ToolFailed, match="SystemExit: 3"):
            await bounded(pool.call(job(package, "leave")))
        after = await bounded(pool.call(job(package, "whoami")))
    assert before.result == after.result
    assert before.worker_pid == after.worker_pid
    assert failed.value.code == "tool_failed"
    assert failed.value.facts["logs"] == "before\n"
    assert "in fail" in failed.value.facts["traceback"]
    assert "worker.py" not in failed.value.facts["traceback"]


@pytest.mark.parametrize(
    ("function", "arguments", "code"),
    [
        ("big", {"n": 1024 * 1024}, "result_too_large"),
        ("not_json", {}, "result_not_json"),
        ("not_json", {"nan": True}, "result_not_json"),
        ("absent", {}, "no_function"),
    ],
)
async def test_a_result_that_cannot_be_sent_is_a_clear_error(
    package: Path, function: str, arguments: dict[str, int], code: str
) -> None:
    async with running_pool() as pool:
        with pytest.raises(ToolFailed) as failed:
            await bounded(pool.call(job(package, function, arguments)))
    assert failed.value.code == code


async def test_a_script_that_does_not_load_says_why(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", broken_py="def f(:\n", exits_py="import os; os._exit(1)")
    async with running_pool() as pool:
        with pytest.raises(ToolFailed, match="SyntaxError") as failed:
            await bounded(pool.call(job(package, ["python", "scripts/broken.py:f"])))
        with pytest.raises(ToolFailed) as exited:
            await bounded(pool.call(job(package, ["python", "scripts/exits.py:f"])))
        with pytest.raises(ToolFailed) as absent:
            await bounded(pool.call(job(package, ["python", "scripts/absent.py:f"])))
        await until(lambda: not pool.stats())
    assert failed.value.code == absent.value.code == "load_failed"
    assert exited.value.code == "worker_crashed"


async def test_one_crash_among_twenty_calls_fails_that_call_alone(package: Path) -> None:
    crashed = metrics.worker_ends.labels("crashed")._value.get()
    async with running_pool(workers_max=2) as pool:
        calls = [pool.call(job(package, "crash", {"crash": at == 7})) for at in range(20)]
        answers = await bounded(asyncio.gather(*calls, return_exceptions=True))
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(failures) == 1
    assert isinstance(failures[0], ToolFailed)
    assert failures[0].code == "worker_crashed"
    assert metrics.worker_ends.labels("crashed")._value.get() == crashed + 1


async def test_a_worker_killed_from_outside_is_replaced(package: Path) -> None:
    async with running_pool(workers_max=1) as pool:
        first = await bounded(pool.call(job(package, "echo")))
        os.kill(first.worker_pid, signal.SIGKILL)
        await until(lambda: not pool.stats())
        second = await bounded(pool.call(job(package, "echo")))
    assert first.worker_pid != second.worker_pid


async def test_a_call_over_its_time_is_killed_with_all_it_started(package: Path) -> None:
    async with running_pool() as pool:
        call = asyncio.create_task(pool.call(job(package, "hang", timeout_s=0.5)))
        await until(lambda: bool(pool.stats()) and len(family(pool.stats()[0].pid)) >= 4)
        pids = family(pool.stats()[0].pid)
        with pytest.raises(Timeout, match=r"after 0\.5 s"):
            await bounded(call)
        await until(lambda: not any(is_alive(pid) for pid in pids))
        assert (await bounded(pool.call(job(package, "echo", {"a": 1})))).result == {"a": 1}


async def test_a_script_that_hangs_while_it_loads_is_killed(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", slow_py="while True: pass")
    async with running_pool() as pool:
        with pytest.raises(Timeout):
            await bounded(pool.call(job(package, ["python", "scripts/slow.py:f"], timeout_s=0.3)))
        await until(lambda: not pool.stats())


async def test_a_cancelled_call_ends_its_worker_and_nobody_elses(package: Path) -> None:
    async with running_pool(workers_max=2) as pool:
        other = await bounded(pool.call(job(package, "whoami", memory_mb=300)))
        call = asyncio.create_task(pool.call(job(package, "hang")))
        await until(lambda: len(pool.stats()) == 2 and len(family(pool.stats()[1].pid)) >= 4)
        pids = family(pool.stats()[1].pid)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bounded(call)
        await until(lambda: not any(is_alive(pid) for pid in pids))
        assert (await bounded(pool.call(job(package, "whoami", memory_mb=300)))).worker_pid == other.worker_pid


async def test_a_call_cancelled_at_any_moment_gives_its_place_back(package: Path) -> None:
    async with running_pool(workers_max=2, queue_max=100) as pool:
        for at in range(25):
            calls = [asyncio.create_task(pool.call(job(package, "echo", memory_mb=200 + n))) for n in range(4)]
            await asyncio.wait(calls, timeout=at * 0.003)
            for call in calls:
                call.cancel()
            await bounded(asyncio.gather(*calls, return_exceptions=True))
            assert pool.waiting == 0
            assert len(pool.stats()) <= 2
        await bounded(pool.close())
        await until(lambda: not processes_naming(package))


async def test_a_call_cancelled_while_its_worker_starts_leaves_the_pool_whole(package: Path) -> None:
    async with running_pool(workers_max=1) as pool:
        call = asyncio.create_task(pool.call(job(package, "echo")))
        await until(lambda: bool(pool.stats()))
        call.cancel()
        await asyncio.wait([call], timeout=5)
        assert (await bounded(pool.call(job(package, "echo", {"a": 1})))).result == {"a": 1}


async def test_a_memory_bomb_is_an_error_to_its_caller_alone(package: Path) -> None:
    async with running_pool(workers_max=2) as pool:
        other = await bounded(pool.call(job(package, "whoami", memory_mb=200)))
        with pytest.raises(ToolFailed) as failed:
            await bounded(pool.call(job(package, "bomb", memory_mb=128)))
        after = await bounded(pool.call(job(package, "whoami", memory_mb=200)))
    assert failed.value.code == "memory_exceeded"
    assert after.worker_pid == other.worker_pid


async def test_a_tool_that_writes_to_the_workers_socket_harms_itself_alone(package: Path) -> None:
    async with running_pool(workers_max=1) as pool:
        with pytest.raises(ServiceError) as failed:
            await bounded(pool.call(job(package, "forge")))
        assert failed.value.code == "worker_crashed"
        assert (await bounded(pool.call(job(package, "echo", {"a": 1})))).result == {"a": 1}


async def test_a_call_finds_no_files_of_the_call_before(package: Path) -> None:
    async with running_pool() as pool:
        first = await bounded(pool.call(job(package, "litter")))
        second = await bounded(pool.call(job(package, "litter")))
    assert first.worker_pid == second.worker_pid
    assert first.result == second.result == []


_SERVICE = """
import asyncio, sys
from pathlib import Path
from tests.support.workers import job, running_pool, until

async def main():
    package = Path(sys.argv[1])
    async with running_pool() as pool:
        await pool.call(job(package, "echo", memory_mb=300))
        call = asyncio.create_task(pool.call(job(package, "hang", timeout_s=600)))
        await until(lambda: len(pool.stats()) == 2)
        sys.stdout.write(" ".join(str(worker.pid) for worker in pool.stats()) + "\\n")
        sys.stdout.flush()
        await call

asyncio.run(main())
"""


async def test_nothing_survives_a_kill_of_the_service(package: Path) -> None:
    async with running_pool():
        pass  # skips where there is no sandbox
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SERVICE, str(package)), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert service.stdout is not None
    try:
        while not (line := await bounded(service.stdout.readline())).strip().replace(b" ", b"").isdigit():
            assert line, "the service ended early"
        workers = [int(pid) for pid in line.split()]
        await until(lambda: len(family(workers[1])) >= 4)
        pids = [pid for worker in workers for pid in family(worker)]
    finally:
        service.kill()
        await bounded(service.wait())
    await until(lambda: not any(is_alive(pid) for pid in pids) and not processes_naming(package))
    assert len(pids) >= 7
    service._transport.close()  # type: ignore[attr-defined]  # the pipe's end is ours to close
