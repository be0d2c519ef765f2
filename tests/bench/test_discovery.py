"""The index of 2,400 skills for installers, beside a bare route with the same bytes: at most 1.5 times its CPU."""

import time
from pathlib import Path

import httpx2
import pytest

from tests.support import large_catalog
from tests.support.bare import bare
from tests.support.bench import machine
from tests.support.load import Server, beside, idle_share
from tests.support.service import running

pytestmark = pytest.mark.bench

KEY = "k" * 40
INDEX = "/.well-known/agent-skills/index.json"
REQUEST = f"GET {INDEX} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
SETTLE_S = 600.0
CONNECTIONS, ROUNDS, TRIES = 4, 50, 7
BUDGET = 1.5


def settled(client: httpx2.Client) -> bytes:
    """The index, once it names every skill."""
    started_s = time.monotonic()
    while True:
        answer = client.get(INDEX)
        if len(answer.json()["skills"]) == large_catalog.SIZE:
            return answer.content
        assert time.monotonic() - started_s < SETTLE_S
        time.sleep(1)


def test_the_index_of_a_large_catalog(tmp_path: Path) -> None:
    large_catalog.fill(tmp_path / "skills", large_catalog.SIZE)
    with running(tmp_path / "skills", tmp_path / "data", embedder="off", admin_key=KEY) as service:
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=service.url, headers=headers, timeout=60) as client:
            body = settled(client)
        us = Server(service.process.pid, service.port, idle_share(service.process.pid, 3.0))
        with bare(INDEX, body, tmp_path) as floor_server:
            floor = Server(*floor_server)
            ours_us, floor_us = beside(us, floor, REQUEST, connections=CONNECTIONS, rounds=ROUNDS, tries=TRIES)
    print(f"\n{machine('starlette', 'uvicorn')}; {large_catalog.SIZE} skills, {len(body)} B, a key asked for")
    print(f"  discovery index {ours_us:.0f} us CPU a request, bare {floor_us:.0f} us: {ours_us / floor_us:.2f}")
    assert ours_us <= BUDGET * floor_us
