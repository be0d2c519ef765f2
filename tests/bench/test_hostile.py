"""What refusing a hostile package costs: time as its sender sees it, memory as the kernel counts it.

Budget: under 200 ms and under 50 MB each, the bytes of the upload itself included.
"""

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from tests.e2e.test_hostile import stored
from tests.support.bench import machine
from tests.support.hostile import ARCHIVES, LARGE
from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, running

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

TRIES = 3
BUDGET_MS, BUDGET_MB = 200, 50


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"\n{machine()}\nleast time and most memory of {TRIES} tries")
    skills, data, staging = (tmp_path / name for name in ("skills", "data", "staging"))
    for folder in (skills, staging):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(staging))
    with running(skills, data) as service, httpx2.Client(base_url=service.url) as client:
        client.post("/api/v1/skills", files={"file": ("a.zip", zip_of({"SKILL.md": skill_md()}))}).raise_for_status()
        refusal(service, client, zip_of({"SKILL.md": skill_md("---")}))
        staged = sorted(staging.rglob("*"))
        before, at_first_mb = kept(client, data), _memory_mb(service.process.pid, "VmRSS")
        print(f"{'package':<34}{'bytes':>12}{'status':>8}  {'code':<12}{'ms':>9}{'peak MB':>9}")
        over = []
        for name, hostile in {**ARCHIVES, **LARGE}.items():
            made = hostile.make()
            tries = [refusal(service, client, made) for _ in range(TRIES)]
            status, code = tries[0].status, tries[0].code
            ms, peak_mb = min(each.ms for each in tries), max(each.peak_mb for each in tries)
            assert 400 <= status < 500
            print(f"{name:<34}{len(made):>12}{status:>8}  {code:<12}{ms:>9.1f}{peak_mb:>9.1f}")
            if ms > BUDGET_MS or peak_mb > BUDGET_MB:
                over.append(name)
        after_mb = _memory_mb(service.process.pid, "VmRSS")
        print(f"the service in the end: {after_mb - at_first_mb:+.1f} MB; of {before}")
        assert kept(client, data) == before, "something was written"
        assert sorted(staging.rglob("*")) == staged
        print(f"nothing written; over {BUDGET_MS} ms or {BUDGET_MB} MB:", ", ".join(over) or "none")
    assert not over


class Kept(NamedTuple):
    revision: str
    blobs: int
    rows: str
    """A hash of every row a publish may write."""


def kept(client: httpx2.Client, data: Path) -> Kept:
    found = stored(data)
    revision = client.get("/api/v1/skills").raise_for_status().json()["data"]["revision"]
    assert isinstance(found["blobs"], list)
    return Kept(str(revision), len(found["blobs"]), hashlib.sha256(repr(found["rows"]).encode()).hexdigest()[:12])


class Refusal(NamedTuple):
    """`ms` from sending to the answer; `peak_mb` is how far the service's peak rose."""

    status: int
    code: str
    ms: float
    peak_mb: float


def refusal(service: Service, client: httpx2.Client, data: bytes) -> Refusal:
    before_mb = _reset_peak(service.process.pid)
    started = time.perf_counter()
    answer = client.post("/api/v1/skills", files={"file": ("a.zip", data)}, timeout=30)
    taken_ms = (time.perf_counter() - started) * 1000
    peak_mb = _memory_mb(service.process.pid, "VmHWM") - before_mb
    return Refusal(answer.status_code, answer.json()["code"], taken_ms, peak_mb)


def _reset_peak(pid: int) -> float:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _memory_mb(pid, "VmRSS")


def _memory_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
