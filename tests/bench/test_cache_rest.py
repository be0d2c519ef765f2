"""A cached skill over REST, key and metrics on, against a bare route with the same bytes (budget C6)."""

import statistics
from pathlib import Path

import httpx2
import pytest

from tests.support.bare import bare
from tests.support.bench import machine
from tests.support.load import cpu_us_of, idle_share
from tests.support.service import running, write_skill

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

KEY = "k" * 32
PATH = "/api/v1/skills/main/demo"
CONNECTIONS = 50
ROUNDS = 7
# Requests a second of the floor's that must be reached, by the CPU that one costs.
BUDGET = 0.8
_HEADERS = f"Host: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer {KEY}\r\n\r\n"
REQUEST = f"GET {PATH} HTTP/1.1\r\n{_HEADERS}".encode()
ROUTED = f"GET {PATH} HTTP/1.1\r\nX-Consistency: bounded\r\n{_HEADERS}".encode()


def test_a_cached_skill_over_rest(tmp_path: Path) -> None:
    write_skill(tmp_path / "skills", "demo", body="Step by step. " * 20)
    with running(tmp_path / "skills", tmp_path / "data", admin_key=KEY) as service:
        auth = {"authorization": f"Bearer {KEY}"}
        url = f"{service.url}{PATH}"
        with httpx2.Client(headers=auth, timeout=5) as client:
            while client.get(url).status_code != 200:
                pass
            client.get(url)
            answer = client.get(url)
        assert "tier=l1" in answer.headers["cache-status"]
        with bare(PATH, answer.content, tmp_path) as (floor_pid, floor_port):
            ways = {
                "bare Starlette route": (floor_pid, floor_port, REQUEST),
                "cached skill, key and metrics": (service.process.pid, service.port, REQUEST),
                "the same through the router": (service.process.pid, service.port, ROUTED),
            }
            idle = {pid: idle_share(pid, 3.0) for pid, *_ in ways.values()}
            costs: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, (pid, port, request) in ways.items():
                    cost = cpu_us_of(pid, port, request, connections=CONNECTIONS, rounds=100, idle=idle[pid])
                    costs[name].append(cost)
    print(f"\n{machine('starlette', 'uvicorn', 'fastapi')}; {len(answer.content)} B, {CONNECTIONS} connections")
    print(f"  idle, the service uses {idle[service.process.pid]:.1%} of a core, which is not counted below")
    floor = costs["bare Starlette route"]
    shares = {}
    for name, values in costs.items():
        shares[name] = statistics.median(least / each for least, each in zip(floor, values, strict=True))
        print(
            f"  {name:<32} {statistics.median(values):>7.1f} us CPU a request   {shares[name]:.2f} x the floor's rate"
        )
    assert shares["cached skill, key and metrics"] >= BUDGET
