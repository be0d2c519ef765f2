"""Budgets M7 and M8: from the start of the process to ready, the first import, and memory.

`SKILLWIRE_BENCH_SKILLS` names a folder of real packages, of which the first 402 are taken; without
it they are generated, as the 2,451 always are. Processor time is the process's own, all threads,
from its first instruction, so the interpreter's imports are part of it; on a busy machine it says
more than the clock does. The first start compiles the bytecode that the others find, as it does
after an installation, whatever PYTHONDONTWRITEBYTECODE says where this is run.

Beside it, in turn with it, FastMCP starts on the same folder: it stores nothing, and reads all of it at
every start, up to its first answer to `resources/list`. The budget's 1.5 s were set where it took 2.7 s, so
what holds on any machine is their ratio.
"""

import asyncio
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from services.skills.package import find_roots
from tests.support import mcp_wire
from tests.support.service import Service, get, running, write_skill

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

STARTS = 3
WAIT_S = 300
# packages: (start to ready with all of them stored, first import while serving), in seconds
BUDGETS_S = {402: (1.5, 3.0), 2451: (3.0, 15.0)}
MEMORY_BUDGET_MB = 110
# What the budget is of the time that FastMCP took where both were measured.
PEER_SHARE_MAX = 1.5 / 2.7


def collection(folder: Path, count: int) -> Path:
    given = os.environ.get("SKILLWIRE_BENCH_SKILLS") if count == 402 else None
    skills = folder / "skills"
    if given:
        for root in find_roots(Path(given))[:count]:
            shutil.copytree(root, skills / root.relative_to(given), dirs_exist_ok=True)
    else:
        for number in range(count):
            write_skill(skills, f"skill-{number:04}", f"Does the thing called {number}.", "Step by step. " * 200)
    return skills


@pytest.mark.parametrize("count", BUDGETS_S)
def test_start(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))
    skills, data = collection(tmp_path, count), tmp_path / "data"
    ready_budget_s, import_budget_s = BUDGETS_S[count]
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, {count} packages")
    print(f"{'':<34}{'clock s':>9}{'processor s':>13}{'budget s':>10}")
    with running(skills, data) as service:
        begun, begun_cpu_s = time.perf_counter(), processor_s(service.process.pid)
        _scanned(service)
        taken = time.perf_counter() - begun, processor_s(service.process.pid) - begun_cpu_s
        print(f"{'first import, after ready':<34}{taken[0]:>9.2f}{taken[1]:>13.2f}{import_budget_s:>10.1f}")
    starts, first_lists = [], []
    _peer_start(skills)  # compiles
    peers = []
    for _ in range(STARTS):
        peers.append(_peer_start(skills))
        begun = time.perf_counter()
        with running(skills, data) as service:
            starts.append((time.perf_counter() - begun, processor_s(service.process.pid)))
            asyncio.run(_resources(service.url))
            first_lists.append((time.perf_counter() - begun, processor_s(service.process.pid)))
            _scanned(service)
            memory = {
                "once the folder is scanned": resident(service),
                "once they are listed": resident(service, _list),
                "after a first search": resident(service, _search),
            }
    for at, (clock_s, cpu_s) in enumerate(starts, start=1):
        print(f"{f'start {at} to ready, all stored':<34}{clock_s:>9.2f}{cpu_s:>13.2f}{ready_budget_s:>10.1f}")
    for who, times in (("Skillwire", first_lists), ("FastMCP", peers)):
        for clock_s, cpu_s in times:
            print(f"{f'{who}, start to resources/list':<34}{clock_s:>9.2f}{cpu_s:>13.2f}")
    share = min(cpu_s for _, cpu_s in starts) / min(cpu_s for _, cpu_s in peers)
    print(f"{'share of processor':<34}{'':>9}{share:>13.2f}{PEER_SHARE_MAX:>10.2f}")
    for when, what in memory.items():
        budget = f"{MEMORY_BUDGET_MB:>10}" if count == 402 and "search" not in when else ""
        print(f"{f'MB resident {when}':<42}{what:>8.0f}{'':>6}{budget}")


def _peer_start(skills: Path) -> tuple[float, float]:
    """Seconds of clock and of processor from FastMCP's start to its first list."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        begun = time.perf_counter()
        argv = [sys.executable, "-m", "tests.bench.skills_peer", str(descriptor), str(skills)]
        with subprocess.Popen(argv, pass_fds=[descriptor], stderr=subprocess.DEVNULL) as process:
            try:
                assert asyncio.run(_resources(f"http://127.0.0.1:{port}")) > 0
                return time.perf_counter() - begun, processor_s(process.pid)
            finally:
                process.kill()


async def _resources(url: str) -> int:
    """How many are listed first; by us it is the SDK that answers."""
    async with httpx2.AsyncClient(base_url=url, timeout=WAIT_S) as client:
        return len((await mcp_wire.request(client, "resources/list"))["result"]["resources"])


def resident(service: Service, after: Callable[[Service], None] | None = None) -> float:
    if after is not None:
        after(service)
    return memory_mb(service, "VmRSS")


def _list(service: Service) -> None:
    """Over REST, page by page, and over MCP."""
    cursor: dict[str, str] = {}
    while True:
        page = get(service, "/skills", limit="200", **cursor)
        if not page["next_cursor"]:
            break
        cursor = {"cursor": str(page["next_cursor"])}

    async def over_mcp() -> None:
        async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
            assert (await mcp_wire.request(client, "skills/list"))["result"]["skills"]

    asyncio.run(over_mcp())


def _search(service: Service) -> None:
    answer = httpx2.post(f"{service.url}/api/v1/search", json={"query": "review a pull request"}, timeout=30)
    assert answer.status_code == 200


def _scanned(service: Service) -> None:
    """Returns once the first scan of the folder has ended, by the service's own log."""
    until = time.perf_counter() + WAIT_S
    while not any("folder scanned" in line for line in service.log):
        assert time.perf_counter() < until
        time.sleep(0.01)


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(service: Service, field: str) -> float:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
