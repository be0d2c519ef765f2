"""The tasks extension on the wire, on two replicas of which any may be asked."""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from gateway.mcp.wire import TASKS_EXTENSION as EXTENSION
from tests.support import mcp_wire
from tests.support.listeners import WAIT_S, eventually, sse
from tests.support.packages import tool, tools_json
from tests.support.service import START_S, Service, command, environment, get, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio
KNOWS: dict[str, Any] = {"elicitation": {}, "extensions": {EXTENSION: {}}}
_SCRIPT = """
import time

def nap(arguments):
    time.sleep(arguments["s"])
    return {"slept": arguments["s"]}

def ask(arguments, call):
    if "name" in call.responses:
        return "Hello, " + call.responses["name"]["content"]["name"]
    time.sleep(0.6)
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    return {"inputRequests": {"name": {"method": "elicitation/create",
                                       "params": {"message": "Who?", "requestedSchema": schema}}}}
"""


def write_slow(skills: Path) -> None:
    folder = write_skill(skills, "slow")
    (folder / "run.py").write_text(_SCRIPT)
    declared = tools_json(
        tool("nap", command=["python", "run.py:nap"], task="optional"),
        tool("must", command=["python", "run.py:nap"], task="required"),
        tool("ask", command=["python", "run.py:ask"], task="optional", interactive=True),
    )
    (folder / "tools.json").write_bytes(declared)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    folder = tmp_path_factory.mktemp("tasks")
    write_slow(folder / "skills")
    with running(folder / "skills", folder / "data") as one, running(folder / "skills", folder / "data") as other:
        for each in (one, other):
            wait_for_skills(each, 1)
        yield [one, other]


@pytest.fixture
async def clients(replicas: list[Service]) -> AsyncIterator[list[httpx2.AsyncClient]]:
    one, other = (httpx2.AsyncClient(base_url=each.url, timeout=WAIT_S) for each in replicas)
    async with one, other:
        yield [one, other]


async def call(client: httpx2.AsyncClient, name: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": f"main_slow_{name}", "arguments": arguments}
    result: dict[str, Any] = (await mcp_wire.request(client, "tools/call", params, capabilities=KNOWS))["result"]
    return result


async def task(client: httpx2.AsyncClient, method: str, task_id: str, **params: Any) -> dict[str, Any]:
    answer = await mcp_wire.request(client, f"tasks/{method}", {"taskId": task_id, **params}, capabilities=KNOWS)
    result: dict[str, Any] = answer["result"]
    return result


async def until(client: httpx2.AsyncClient, task_id: str, status: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        now = await task(client, "get", task_id)
        return now if now["status"] == status else None

    found: dict[str, Any] = await eventually(reached)
    return found


async def test_a_run_is_followed_at_any_replica_by_its_topic(
    clients: list[httpx2.AsyncClient], replicas: list[Service]
) -> None:
    begun = (await call(clients[0], "ask"))["taskId"]
    async with sse(replicas[1].url, f"runs/{begun}") as inbox:

        async def status(wanted: str) -> dict[str, Any]:
            found: dict[str, Any] = await inbox.next(lambda state: state.get("data") == {"id": begun, "status": wanted})
            return found

        asked = await status("input_required")  # by now or from the start: what went before is conflated
        assert (asked["topic"], asked["key"], asked["kind"]) == (f"runs/{begun}", begun, "run.input_required")
        await task(clients[0], "cancel", begun)
        ended = await status("cancelled")
        assert int(ended["state_id"].rpartition("-")[2]) > int(asked["state_id"].rpartition("-")[2])
    async with sse(replicas[0].url, f"runs/{begun}") as inbox:
        latest = await inbox.next(lambda state: state.get("topic") == f"runs/{begun}")
        assert (latest["data"]["status"], latest["state_id"]) == ("cancelled", ended["state_id"])


@asynccontextmanager
async def listening(client: httpx2.AsyncClient, *task_ids: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Messages of a listen stream, the acknowledgement first."""
    wanted = {"notifications": {"taskIds": [*task_ids]}}
    composed = mcp_wire.composed("subscriptions/listen", wanted, capabilities=KNOWS)
    async with client.stream("POST", **composed) as answer:

        async def messages() -> AsyncGenerator[dict[str, Any], None]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[len("data: ") :])

        async with aclosing(messages()) as told:
            yield told


async def test_a_long_call_is_a_task_that_the_other_replica_tells_the_end_of(clients: list[httpx2.AsyncClient]) -> None:
    made = await call(clients[0], "nap", s=1)
    assert (made["resultType"], made["status"], made["ttlMs"]) == ("task", "working", 24 * 3600 * 1000)
    async with asyncio.timeout(WAIT_S), listening(clients[1], made["taskId"], "f" * 44) as messages:
        acknowledged = await anext(messages)
        assert acknowledged["params"]["notifications"] == {"taskIds": [made["taskId"]]}, "its own alone"
        first = await anext(messages)
        assert (first["method"], first["params"]["status"]) == ("notifications/tasks", "working")
        told = (await anext(messages))["params"]
    known = await task(clients[0], "get", made["taskId"])
    assert known["result"]["structuredContent"] == {"slept": 1}
    assert known["result"]["_meta"]["dev.skillwire/version"] == 1
    for answer in (told, known):
        del answer["_meta"]
    del known["resultType"]
    assert told == known, "as tasks/get would answer"


async def test_a_task_that_was_over_before_anybody_listened_is_told(clients: list[httpx2.AsyncClient]) -> None:
    made = await call(clients[0], "nap", s=0.6)
    await until(clients[1], made["taskId"], "completed")
    async with asyncio.timeout(WAIT_S), listening(clients[1], made["taskId"]) as messages:
        assert [(await anext(messages))["params"].get("status") for _ in range(2)] == [None, "completed"]


@asynccontextmanager
async def over_stdio(skills: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command("stdio", "--skills", str(skills), "--data", str(skills.parent / "data")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(scripts_allowed_owners='["main"]'),
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def test_a_client_over_stdio_is_told_of_its_tasks(tmp_path: Path) -> None:
    write_slow(tmp_path / "skills")
    async with asyncio.timeout(START_S), over_stdio(tmp_path / "skills") as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(number: int, method: str, params: dict[str, Any]) -> None:
            assert process.stdin is not None
            body = mcp_wire.composed(method, params, capabilities=KNOWS)["json"] | {"id": number}
            process.stdin.write(json.dumps(body).encode() + b"\n")

        async def heard() -> dict[str, Any]:
            assert process.stdout is not None
            message: dict[str, Any] = json.loads(await process.stdout.readline())
            return message

        made: dict[str, Any] = {}
        for number in itertools.count(1):  # until the folder has been scanned
            ask(number, "tools/call", {"name": "main_slow_nap", "arguments": {"s": 1}})
            made = (await heard()).get("result", {})
            if "taskId" in made:
                break
            await asyncio.sleep(0.05)
        wanted = {"taskIds": [made["taskId"], "f" * 44], "toolsListChanged": True}
        ask(-1, "subscriptions/listen", {"notifications": wanted})
        acknowledged = (await heard())["params"]
        assert acknowledged["notifications"] == {"taskIds": [made["taskId"]], "toolsListChanged": True}
        told = [(await heard()) for _ in range(2)]
        assert [(each["method"], each["params"]["status"]) for each in told] == [
            ("notifications/tasks", "working"),
            ("notifications/tasks", "completed"),
        ]
        assert told[1]["params"]["result"]["structuredContent"] == {"slept": 1}
        subscription = "io.modelcontextprotocol/subscriptionId"
        assert {each["params"]["_meta"][subscription] for each in told} == {-1}


async def test_a_task_asks_and_is_answered_elsewhere(clients: list[httpx2.AsyncClient]) -> None:
    made = await call(clients[0], "ask")
    asks = await until(clients[1], made["taskId"], "input_required")
    [(key, question)] = asks["inputRequests"].items()
    assert question["params"]["message"] == "Who?"
    bad = {"taskId": made["taskId"], "inputResponses": {key: {"action": "maybe"}}}
    refused = await mcp_wire.request(clients[1], "tasks/update", bad, capabilities=KNOWS)
    assert refused["error"]["code"] == types.INVALID_PARAMS
    answers = {key: {"action": "accept", "content": {"name": "Ada"}}, "9.unknown": {"ignored": True}}
    acknowledged = await task(clients[1], "update", made["taskId"], inputResponses=answers)
    assert {*acknowledged} == {"resultType", "_meta"}
    done = await until(clients[0], made["taskId"], "completed")
    assert done["result"]["content"][0]["text"] == "Hello, Ada"


async def test_a_run_is_seen_and_ended_over_rest(replicas: list[Service], clients: list[httpx2.AsyncClient]) -> None:
    made = await call(clients[0], "nap", s=30)
    runs = get(replicas[1], "/runs", limit="1")
    assert [run["id"] for run in runs["items"]] == [made["taskId"]]  # type: ignore[attr-defined]
    assert runs["next_cursor"] == made["taskId"]
    ended = await clients[1].post(f"/api/v1/runs/{made['taskId']}/cancel", json={})
    assert ended.json()["data"]["status"] == "cancelled"
    assert get(replicas[0], f"/runs/{made['taskId']}")["status"] == "cancelled"
    assert (await clients[0].get(f"/api/v1/runs/{'f' * 44}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "named", "status", "code"),
    [
        ("tasks/get", {"taskId": "f" * 44}, KNOWS, None, 400, types.INVALID_PARAMS),
        ("tasks/cancel", {"taskId": "f" * 44}, KNOWS, None, 400, types.INVALID_PARAMS),
        ("tasks/update", {"taskId": "f" * 44, "inputResponses": {}}, KNOWS, None, 400, types.INVALID_PARAMS),
        ("tasks/get", {"taskId": "f" * 44}, {}, None, 400, types.MISSING_REQUIRED_CLIENT_CAPABILITY),
        ("tasks/get", {"taskId": "f" * 44}, KNOWS, "e" * 44, 400, types.HEADER_MISMATCH),
        ("tasks/list", {}, KNOWS, None, 404, types.METHOD_NOT_FOUND),
        (
            "subscriptions/listen",
            {"notifications": {"taskIds": ["f" * 44]}},
            {},
            None,
            400,
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
        ),
        (
            "tools/call",
            {"name": "main_slow_must", "arguments": {"s": 0}},
            {},
            None,
            400,
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
        ),
    ],
)
async def test_what_cannot_be_is_refused_as_the_extension_says(
    clients: list[httpx2.AsyncClient], method: str, params: Any, capabilities: Any, named: Any, status: int, code: int
) -> None:
    composed = mcp_wire.composed(method, params, capabilities, named)
    answer = await clients[0].post(**composed)
    assert answer.json()["error"]["code"] == code, answer.text
    assert answer.status_code == status
    if code == types.MISSING_REQUIRED_CLIENT_CAPABILITY:
        required = answer.json()["error"]["data"]["requiredCapabilities"]
        assert required == {"extensions": {EXTENSION: {}}}


async def test_who_does_not_know_tasks_waits_for_the_result(replicas: list[Service]) -> None:
    for mode in ("auto", "legacy"):
        async with Client(f"{replicas[0].url}/mcp", mode=mode) as client:
            answer = await client.call_tool("main_slow_nap", {"s": 0.6})
            assert answer.structured_content == {"slept": 0.6}
            with pytest.raises(MCPError) as refused:
                await client.call_tool("main_slow_must", {"s": 0})
            assert refused.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY


async def test_tasks_outlive_the_process_they_began_in(tmp_path: Path) -> None:
    write_slow(tmp_path / "skills")
    with running(tmp_path / "skills", tmp_path / "data") as first:
        wait_for_skills(first, 1)
        async with httpx2.AsyncClient(base_url=first.url, timeout=WAIT_S) as client:
            asking, working = await call(client, "ask"), await call(client, "nap", s=30)
            done = await call(client, "nap", s=0.6)
            [key] = (await until(client, asking["taskId"], "input_required"))["inputRequests"]
            await until(client, done["taskId"], "completed")
    with running(tmp_path / "skills", tmp_path / "data") as second:
        async with httpx2.AsyncClient(base_url=second.url, timeout=WAIT_S) as client:
            failed = await task(client, "get", working["taskId"])
            assert (failed["status"], failed["error"]["data"]["code"]) == ("failed", "interrupted")
            assert (await task(client, "get", done["taskId"]))["result"]["structuredContent"] == {"slept": 0.6}
            answers = {key: {"action": "accept", "content": {"name": "Ada"}}}
            await task(client, "update", asking["taskId"], inputResponses=answers)
            assert (await until(client, asking["taskId"], "completed"))["result"]["isError"] is False
