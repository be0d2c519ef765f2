"""M1 to M4: what a request to /mcp costs the server's processor, beside its peers and bare Starlette.

Processor time is the kernel's account of the server's process (schedstat, in nanoseconds), so other
load on the machine moves it little; requests/s would be. `bare` answers the very bytes that Skillwire
answered, over the same uvicorn.
"""

import asyncio
import json
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.bench import machine
from tests.support.mcp_wire import VERSION
from tests.support.service import running

pytestmark = [pytest.mark.bench, pytest.mark.anyio]

SKILLS = 1000
CONNECTIONS = 4
START_S = 120.0
SETTLE_S = 600.0
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "times": {"type": "integer"}}}
URI = "skill://main/skill-0500/SKILL.md"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "0"},
}


class Case(NamedTuple):
    """`most` is the budget, times bare; `ours_us` the one in microseconds, 0 for none."""

    budget: str
    method: str
    params: dict[str, Any]
    requests: int
    most: float
    ours_us: float = 0.0


CASES = (
    Case("M1", "skills/list", {}, 300, 1.3),
    Case("M2", "tools/list", {}, 300, 1.3),
    Case("M3", "skills/get", {"uri": URI}, 2000, 1.5),
    Case("M3", "resources/read", {"uri": URI}, 2000, 1.5),
    Case("M4", "tools/call", {"name": "check_operation", "arguments": {"tool": "x", "arguments": {}}}, 1000, 0, 150),
)
WIDTHS = {"low-level SDK": 15, "FastMCP": 12}
PEER_CASES = {"tools/list": 10, "tools/call": 200}


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


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
    return await reader.readexactly(length)


async def load(port: int, method: str, params: dict[str, Any], count: int, **headers: str) -> bytes:
    """`count` requests over kept connections; the last answer."""

    async def one(at: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        answer = b""
        for number in range(at, count, CONNECTIONS):
            answer = await exchange(reader, writer, message(method, params, number, **headers))
        writer.close()
        return answer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(at)) for at in range(min(CONNECTIONS, count))]
    return tasks[0].result()


def cpu_ns(pid: int) -> int:
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def cost_us(pid: int, port: int, method: str, params: dict[str, Any], count: int, **headers: str) -> float:
    """The least of three, per request."""
    await load(port, method, params, CONNECTIONS, **headers)
    tries = []
    for _ in range(3):
        before = cpu_ns(pid)
        await load(port, method, params, count, **headers)
        tries.append((cpu_ns(pid) - before) / count / 1000)
    return min(tries)


@contextmanager
def peer(kind: str) -> Iterator[tuple[int, int]]:
    """Its process id and port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        argv = [sys.executable, "-m", "tests.bench.mcp_peers", kind, str(listener.fileno()), str(SKILLS)]
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


async def settled(url: str, auth: dict[str, str]) -> None:
    """Until the last skill is served."""
    async with asyncio.timeout(SETTLE_S), httpx2.AsyncClient(base_url=url, timeout=30, headers=auth) as client:
        while True:
            listed = await client.get("/api/v1/skills", params={"limit": "1", "cursor": f"main/skill-{SKILLS - 2:04}"})
            if listed.json()["data"]["items"]:
                return
            await asyncio.sleep(1)


async def test_a_request_costs_little_more_than_sending_its_answer(tmp_path: Path) -> None:
    write_skills(tmp_path / "skills")
    key = "k" * 40
    auth = {"authorization": f"Bearer {key}"}
    print(f"\n{machine('mcp', 'fastmcp', 'starlette', 'uvicorn')}, {platform.system()}")
    print(f"{SKILLS} skills with one tool each, a key asked for; server CPU per request, {CONNECTIONS} connections")
    heads = "".join(f"{kind:>{width}}" for kind, width in WIDTHS.items())
    print(f"{'':5}{'method':<16}{'bytes':>9}{'Skillwire':>12}{'bare':>10}{'ratio':>8}{heads}")
    failed = []
    with running(
        tmp_path / "skills", tmp_path / "data", embedder="off", tools_list_limit="100000", admin_key=key
    ) as service:
        await settled(service.url, auth)
        peers = {kind: await peer_costs(kind) for kind in WIDTHS}
        with peer("bare") as (bare_pid, bare_port):
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{bare_port}", timeout=START_S) as client:
                for case in CASES:
                    ours = await cost_us(
                        service.process.pid, service.port, case.method, case.params, case.requests, **auth
                    )
                    answer = await load(service.port, case.method, case.params, 1, **auth)
                    assert b'"result"' in answer, answer[:300]
                    await put(client, answer)
                    bare = await cost_us(bare_pid, bare_port, case.method, case.params, case.requests)
                    others = "".join(
                        f"{peers[kind].get(case.method, 0):>{width - 2}.0f}us" for kind, width in WIDTHS.items()
                    )
                    print(
                        f"{case.budget:<5}{case.method:<16}{len(answer):>9}{ours:>10.0f}us{bare:>8.0f}us"
                        f"{ours / bare:>8.2f}{others}"
                    )
                    if (case.most and ours > case.most * bare) or (case.ours_us and ours > case.ours_us):
                        failed.append(f"{case.budget} {case.method}: {ours:.0f} us, bare {bare:.0f} us")
    assert not failed


async def put(client: httpx2.AsyncClient, answer: bytes) -> None:
    """To bare Starlette, as soon as it is up."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                await client.put("/mcp", content=answer)
            except httpx2.TransportError:
                await asyncio.sleep(0.2)
            else:
                return


async def peer_costs(kind: str) -> dict[str, float]:
    params = {"tools/list": {}, "tools/call": {"name": "tool-5", "arguments": {"text": "a", "times": 2}}}
    with peer(kind) as (pid, port):
        await load(port, "tools/list", {}, 1)
        return {method: await cost_us(pid, port, method, params[method], count) for method, count in PEER_CASES.items()}
