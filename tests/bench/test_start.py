"""Budgets M7 and M8: from the start of the process to ready, the first import, and memory.

`SKILLWIRE_BENCH_SKILLS` names a folder of real packages, of which the first 402 are taken; without
it they are generated, as the 2,451 always are. Processor time is the process's own, all threads,
from its first instruction, so the interpreter's imports are part of it; on a busy machine it says
more than the clock does. The first start compiles the bytecode that the others find, as it does
after an installation, whatever PYTHONDONTWRITEBYTECODE says where this is run.
"""

import asyncio
import os
import platform
import shutil
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
        begun, begun_cpu_s = time.perf_counter(), processor_s(service)
        _scanned(service)
        taken = time.perf_counter() - begun, processor_s(service) - begun_cpu_s
        print(f"{'first import, after ready':<34}{taken[0]:>9.2f}{taken[1]:>13.2f}{import_budget_s:>10.1f}")
    starts = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        with running(skills, data) as service:
            starts.append((time.perf_counter() - begun, processor_s(service)))
            _scanned(service)
            memory = {
                "once the folder is scanned": resident(service),
                "once they are listed": resident(service, _list),
                "after a first search": resident(service, _search),
            }
    for at, (clock_s, cpu_s) in enumerate(starts, start=1):
        print(f"{f'start {at} to ready, all stored':<34}{clock_s:>9.2f}{cpu_s:>13.2f}{ready_budget_s:>10.1f}")
    for when, what in memory.items():
        budget = f"{MEMORY_BUDGET_MB:>10}" if count == 402 and "search" not in when else ""
        print(f"{f'MB resident {when}':<42}{what:>8.0f}{'':>6}{budget}")


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


def processor_s(service: Service) -> float:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(service: Service, field: str) -> float:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
