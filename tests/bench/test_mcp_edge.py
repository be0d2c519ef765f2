"""M1 to M4: what a request to /mcp costs the server's processor, beside its peers and bare Starlette.

Processor time is the kernel's account of the server's process (schedstat, in nanoseconds), measured for all
of them in the same way (`tests/support/load.py`). `bare` answers the very bytes that Skillwire answered, over
the same uvicorn.
"""

import json
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.bench import machine
from tests.support.load import Server, answer_to, beside, cpu_us_of, idle_share
from tests.support.mcp_wire import VERSION
from tests.support.service import running

pytestmark = pytest.mark.bench

SKILLS = 1000
TRIES = 7
START_S = 120.0
SETTLE_S = 600.0
IDLE_S = 3.0
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "times": {"type": "integer"}}}
URI = "skill://main/skill-0500/SKILL.md"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "0"},
}


class Case(NamedTuple):
    """`most` is the budget, times bare."""

    budget: str
    method: str
    params: dict[str, Any]
    connections: int
    rounds: int
    most: float


CHECK = {"name": "check_operation", "arguments": {"tool": "main_skill-0500_run", "arguments": {"text": "a"}}}
LOAD = {"name": "load_skill", "arguments": {"skill": "main/skill-0500"}}
CASES = (
    Case("M1", "skills/list", {}, 4, 50, 1.3),
    Case("M2", "tools/list", {}, 4, 50, 1.3),
    Case("M3", "skills/get", {"uri": URI}, 50, 40, 1.5),
    Case("M3", "resources/read", {"uri": URI}, 50, 40, 1.5),
    # 60 us, where bare Starlette takes the 32 that the budget was made beside. The second is logged as a call.
    Case("M4", "tools/call", CHECK, 50, 40, 60 / 32),
    Case("M4", "tools/call", LOAD, 50, 40, 150 / 32),
)
FOLDER_URI = "skill://skill-0500/SKILL.md"
REPEAT = {"name": "tool-5", "arguments": {"text": "a", "times": 2}}
# What the peers are asked, over how many connections and how often; what is missing they do not have.
PEERS: dict[str, dict[str, tuple[dict[str, Any], int, int]]] = {
    "low-level SDK": {
        "tools/list": ({}, 1, 5),
        "resources/read": ({"uri": URI}, 50, 10),
        "tools/call": (REPEAT, 50, 10),
    },
    "FastMCP": {
        "skills/list": ({}, 1, 1),
        "tools/list": ({}, 1, 5),
        "skills/get": ({"uri": FOLDER_URI}, 4, 5),
        "resources/read": ({"uri": FOLDER_URI}, 4, 5),
        "tools/call": (REPEAT, 1, 5),
    },
}
PEER_TRIES = 2
WIDTHS = {"low-level SDK": 15, "FastMCP": 12}


def message(method: str, params: dict[str, Any], number: int, **headers: str) -> bytes:
    named = params.get("name", params.get("uri" if method == "resources/read" else "", ""))
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {"_meta": META, **params}})
    lines = {
        "host": "127.0.0.1:80",  # the SDK answers its own names with a port alone
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
        **({"mcp-name": named} if named else {}),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /mcp HTTP/1.1\r\n{head}\r\n{body}".encode()


@contextmanager
def peer(kind: str, skills: Path | None = None) -> Iterator[tuple[int, int]]:
    """Its process id and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        argv = [sys.executable, "-m", "tests.bench.mcp_peers", kind, str(listener.fileno()), str(SKILLS)]
        argv += [] if skills is None else [str(skills)]
        process = subprocess.Popen(argv, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
        try:
            yield process.pid, listener.getsockname()[1]
        finally:
            process.kill()  # the SDK would wait for streams to end
            process.wait(10)


def write_skills(root: Path) -> None:
    for number in range(SKILLS):
        folder = root / f"skill-{number:04}"
        folder.mkdir(parents=True)
        (folder / "SKILL.md").write_text(
            f"---\nname: {folder.name}\ndescription: Repeats text {number} as often as it is told.\n---\nDo it.\n"
        )
        (folder / "run.py").write_text("def run(arguments):\n    return arguments\n")
        tool = {"name": "run", "description": "Repeats a text.", "inputSchema": SCHEMA}
        (folder / "tools.json").write_text(json.dumps({"tools": [{**tool, "command": ["python", "run.py:run"]}]}))


def settle(url: str, auth: dict[str, str]) -> None:
    """Until the last skill is served."""
    started_s = time.monotonic()
    with httpx2.Client(base_url=url, timeout=30, headers=auth) as client:
        while True:
            listed = client.get("/api/v1/skills", params={"limit": "1", "cursor": f"main/skill-{SKILLS - 2:04}"})
            if listed.json()["data"]["items"]:
                return
            assert time.monotonic() - started_s < SETTLE_S
            time.sleep(1)


def test_a_request_costs_little_more_than_sending_its_answer(tmp_path: Path) -> None:
    write_skills(tmp_path / "skills")
    key = "k" * 40
    auth = {"authorization": f"Bearer {key}"}
    print(f"\n{machine('mcp', 'fastmcp', 'starlette', 'uvicorn')}, {platform.system()}")
    print(f"{SKILLS} skills with one tool each, a key asked for; server CPU per request, the server always busy")
    heads = "".join(f"{kind:>{width}}" for kind, width in WIDTHS.items())
    print(f"{'':5}{'method':<30}{'bytes':>9}{'Skillwire':>12}{'bare':>10}{'ratio':>8}{heads}")
    failed = []
    with running(
        tmp_path / "skills", tmp_path / "data", embedder="off", tools_list_limit="100000", admin_key=key
    ) as service:
        settle(service.url, auth)
        peers = {kind: peer_costs(kind, tmp_path / "skills") for kind in WIDTHS}
        us = Server(service.process.pid, service.port, idle_share(service.process.pid, IDLE_S))
        with peer("bare") as bare_server:
            floor = Server(*bare_server)
            for case in CASES:
                request = message(case.method, case.params, 1, **auth)
                answer_to(service.port, request)  # what is kept is kept from now on
                answer = answer_to(service.port, request)
                assert b'"result"' in answer, answer[:300]
                assert b'"isError":true' not in answer, answer[:300]
                put(f"http://127.0.0.1:{floor.port}", answer)
                ours, bare = beside(us, floor, request, connections=case.connections, rounds=case.rounds, tries=TRIES)
                others = "".join(f"{told(peers[kind].get(case.method)):>{width}}" for kind, width in WIDTHS.items())
                named = f"{case.method} {case.params['name']}" if "name" in case.params else case.method
                print(
                    f"{case.budget:<5}{named:<30}{len(answer):>9}{ours:>10.1f}us{bare:>8.1f}us"
                    f"{ours / bare:>8.2f}{others}"
                )
                if ours > case.most * bare:
                    failed.append(f"{case.budget} {named}: {ours:.0f} us, bare {bare:.0f} us")
        print(f"  idle, the service uses {us.idle:.1%} of a core, which is not counted")
    assert not failed


def told(cost_us: float | None) -> str:
    return "-" if cost_us is None else f"{cost_us:.0f}us"


def put(url: str, answer: bytes) -> None:
    """To bare Starlette, as soon as it is up."""
    started_s = time.monotonic()
    while True:
        try:
            httpx2.put(f"{url}/mcp", content=answer, timeout=START_S)
        except httpx2.TransportError:
            assert time.monotonic() - started_s < START_S
            time.sleep(0.2)
        else:
            return


def peer_costs(kind: str, skills: Path) -> dict[str, float]:
    with peer(kind, skills) as (pid, port):
        answer_to(port, message("tools/list", {}, 1))
        costs = {}
        for method, (params, connections, rounds) in PEERS[kind].items():
            request = message(method, params, 1)
            assert b'"result"' in answer_to(port, request)
            costs[method] = min(
                cpu_us_of(pid, port, request, connections=connections, rounds=rounds) for _ in range(PEER_TRIES)
            )
        return costs
