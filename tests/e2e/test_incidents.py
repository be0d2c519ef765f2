"""A tool that fails in a running service: its callers are told what helped, on every edge."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websockets

from tests.support import listeners
from tests.support.service import Service, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio

TOOL = "main_mailer_send"
SCRIPT = """
def send(arguments):
    raise ConnectionError(f"mailbox {arguments['to']!r} at {arguments['host']}:25 refused the connection")
"""
TOOLS = {
    "tools": [
        {
            "name": "send",
            "description": "Sends a mail.",
            "inputSchema": {"type": "object", "required": ["to", "host"]},
            "command": ["python", "mailer.py:send"],
        }
    ]
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("incidents")
    skill = write_skill(folder / "skills", "mailer")
    (skill / "mailer.py").write_text(SCRIPT)
    (skill / "tools.json").write_text(json.dumps(TOOLS))
    return folder


@pytest.fixture(scope="module")
def mailer(folder: Path) -> Iterator[Service]:
    with running(folder / "skills", folder / "data", embedder="off") as started:
        wait_for_skills(started, 1)
        yield started


@pytest.fixture
async def client(mailer: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"{mailer.url}/api/v1", timeout=10) as opened:
        yield opened


def arguments(to: str = "ada", host: str = "10.0.0.7") -> dict[str, str]:
    return {"to": to, "host": host}


async def failed(client: httpx2.AsyncClient, **values: str) -> dict[str, Any]:
    answer = await client.post(f"/tools/{TOOL}/call", json={"arguments": arguments(**values)})
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (502, "tool_failed"), body
    return body


async def told(client: httpx2.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await (client.post(path, json=body) if body else client.get(path))
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def rpc(socket: websockets.ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    await socket.send(json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params}))
    while (message := json.loads(await asyncio.wait_for(socket.recv(), listeners.WAIT_S))).get("id") != method:
        pass
    answer: dict[str, Any] = message
    return answer


async def test_a_failure_is_an_incident_whose_solution_the_next_caller_gets_on_every_edge(
    mailer: Service, client: httpx2.AsyncClient
) -> None:
    first = await failed(client)
    second = await failed(client, to="grace", host="192.168.1.9")
    assert first["incident"] == second["incident"]
    assert first["known_solutions"] == []
    path = f"/incidents/{first['incident']}"
    incident = await told(client, path)
    assert (incident["class"], incident["tool"], incident["solutions"]) == ("NETWORK", TOOL, [])
    assert incident["count"] == 2
    assert [each["id"] for each in (await told(client, "/incidents?class=NETWORK&limit=1"))["items"]] == [
        incident["id"]
    ]
    assert (await told(client, "/incidents?class=DATABASE"))["items"] == []

    endpoint = f"{mailer.url.replace('http', 'ws', 1)}/ws"
    # Two of them: whoever waits for a reply passes over the events that come before it.
    async with websockets.connect(endpoint) as socket, websockets.connect(endpoint) as caller:
        assert "result" in await rpc(socket, "subscribe", topics=["solutions", "incidents"])
        plain = await told(client, f"{path}/solutions", text="wait")
        event = await _event(socket, "solution.added")
        assert (event["topic"], event["data"]["solution"]) == ("solutions", plain["id"])
        proven = await told(client, f"{path}/solutions", text="open port 25")
        assert await _told_texts(client) == ["open port 25", "wait"], "the newest first"
        await told(client, f"{path}/outcome", solution=proven["id"], worked=False)
        ranked = await told(client, f"{path}/outcome", solution=plain["id"], worked=True)
        assert (ranked["worked"], ranked["tried"]) == (1, 1)
        assert await _told_texts(client) == ["wait", "open port 25"]
        assert [each["text"] for each in (await told(client, path))["solutions"]] == ["wait", "open port 25"]

        over_rpc = await rpc(caller, "call_tool", tool=TOOL, arguments=arguments())
        assert over_rpc["error"]["data"]["incident"] == incident["id"]
        assert [each["text"] for each in over_rpc["error"]["data"]["known_solutions"]] == ["wait", "open port 25"]
        state = await _event(socket, "incident.seen")
        assert (state["topic"], state["key"]) == ("incidents", incident["id"])

    async with listeners.mcp_modern(mailer.url) as (mcp, _):
        answer = await mcp.call_tool(TOOL, arguments())
        assert answer.is_error is True
        assert "Known solution (exact, worked 1 of 1 times): wait" in answer.content[0].text  # type: ignore[union-attr]
        assert answer.meta is not None
        assert answer.meta["dev.skillwire/incident"] == incident["id"]
        assert answer.meta["dev.skillwire/known_solutions"][0]["text"] == "wait"


async def test_a_marked_call_is_warned_of_then_refused_and_all_of_it_survives_a_restart(folder: Path) -> None:
    with running(folder / "skills", folder / "other", embedder="off") as service:
        wait_for_skills(service, 1)
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1") as client:
            incident = (await failed(client))["incident"]
            await told(client, f"/incidents/{incident}/solutions", text="open port 25")
            assert await told(client, "/check-operation", tool=TOOL, arguments=arguments()) == {
                "level": "none",
                "reasons": [],
            }
            await told(client, f"/incidents/{incident}/level", level="warn")
            checked = await told(client, "/check-operation", tool=TOOL, arguments=arguments())
            assert (checked["level"], checked["reasons"][0]["solutions"][0]["text"]) == ("warning", "open port 25")
            await failed(client)
            marked = await client.post(f"/incidents/{incident}/level", json={"level": "block"})
            assert int(marked.headers["x-seq"]) > 0
    with running(folder / "skills", folder / "other", embedder="off") as service:
        wait_for_skills(service, 1)
        async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1") as client:
            assert (await told(client, f"/incidents/{incident}"))["count"] == 2
            refused = await client.post(f"/tools/{TOOL}/call", json={"arguments": arguments()})
            assert (refused.status_code, refused.json()["code"]) == (403, "blocked_by_incident")
            assert refused.json()["known_solutions"][0]["text"] == "open port 25"
            await failed(client, to="grace")
            async with listeners.mcp_modern(service.url) as (mcp, _):
                over_mcp = await mcp.call_tool("check_operation", {"tool": TOOL, "arguments": arguments()})
                assert over_mcp.structured_content is not None
                assert over_mcp.structured_content["level"] == "block"


async def test_what_is_not_there_or_not_right_gets_a_4xx(client: httpx2.AsyncClient) -> None:
    nowhere = f"/incidents/{'0' * 32}"
    for path, body, status in (
        (f"{nowhere}/solutions", {"text": "x"}, 404),
        (f"{nowhere}/outcome", {"solution": "sol-1", "worked": True}, 404),
        (f"{nowhere}/level", {"level": "block"}, 404),
        (f"{nowhere}/level", {"level": "warning"}, 422),
        (f"{nowhere}/solutions", {"text": ""}, 422),
        ("/incidents/xyz/solutions", {"text": "x"}, 422),
        ("/check-operation", {"tool": "nothing"}, 404),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == status, (path, answer.text)
    assert (await client.get(nowhere)).status_code == 404
    assert (await client.get("/incidents", params={"cursor": "x"})).status_code == 422


async def _told_texts(client: httpx2.AsyncClient) -> list[str]:
    return [each["text"] for each in (await failed(client))["known_solutions"]]


async def _event(socket: websockets.ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        message = json.loads(await asyncio.wait_for(socket.recv(), listeners.WAIT_S))
        if message.get("method") == "event" and message["params"]["kind"] == kind:
            params: dict[str, Any] = message["params"]
            return params
