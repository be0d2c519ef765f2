"""What refusing a hostile package costs: time as its sender sees it, memory as the kernel counts it.

Budget: under 200 ms and under 50 MB each, the bytes of the upload itself included.
"""

import os
import platform
import time
from pathlib import Path

import httpx2
import pytest

from tests.support.hostile import ARCHIVES, LARGE
from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, running

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

TRIES = 3
BUDGET_MS, BUDGET_MB = 200, 50


def test_refusals(tmp_path: Path) -> None:
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"least time and most memory of {TRIES} tries")
    (tmp_path / "skills").mkdir()
    with running(tmp_path / "skills", tmp_path / "data") as service, httpx2.Client(base_url=service.url) as client:
        refusal(service, client, zip_of({"SKILL.md": skill_md("---")}))
        print(f"{'package':<34}{'bytes':>12}{'status':>8}{'ms':>9}{'peak MB':>9}")
        over = []
        for name, hostile in {**ARCHIVES, **LARGE}.items():
            data = hostile.make()
            tries = [refusal(service, client, data) for _ in range(TRIES)]
            status, ms, peak_mb = tries[0][0], min(each[1] for each in tries), max(each[2] for each in tries)
            assert 400 <= status < 500
            print(f"{name:<34}{len(data):>12}{status:>8}{ms:>9.1f}{peak_mb:>9.1f}")
            if ms > BUDGET_MS or peak_mb > BUDGET_MB:
                over.append(name)
        print(f"over {BUDGET_MS} ms or {BUDGET_MB} MB:", ", ".join(over) or "none")


def refusal(service: Service, client: httpx2.Client, data: bytes) -> tuple[int, float, float]:
    """(status, milliseconds from sending to the answer, how far the service's peak rose in MB)"""
    before_mb = _reset_peak(service.process.pid)
    started = time.perf_counter()
    answer = client.post("/api/v1/skills", files={"file": ("a.zip", data)}, timeout=30)
    taken_ms = (time.perf_counter() - started) * 1000
    return answer.status_code, taken_ms, _memory_mb(service.process.pid, "VmHWM") - before_mb


def _reset_peak(pid: int) -> float:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory_mb(pid, "VmRSS")


def _memory_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
