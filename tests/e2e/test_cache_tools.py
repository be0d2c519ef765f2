"""The cache by hand, as seed 000 asks for it: over MCP, REST and RPC, with figures that are true."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import websockets

from tests.support import mcp_wire
from tests.support.service import Service, write_skill

pytestmark = pytest.mark.anyio

WAIT_S = 5.0
ID = "main/hello-world"


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=service.url, timeout=WAIT_S) as opened:
        yield opened


async def rest(client: httpx2.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = await client.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def stats(client: httpx2.AsyncClient) -> Any:
    return await rest(client, "GET", "/cache/stats")


def cached(shown: Any, skill_id: str) -> Any:
    found = [each for each in shown["skill_cache"]["cached_skills"] if each["skill_id"] == skill_id]
    return found[0] if found else None


async def test_the_figures_follow_what_was_read(client: httpx2.AsyncClient) -> None:
    await rest(client, "POST", "/cache/invalidate", {})
    before = await stats(client)
    assert before["skill_cache"]["cached_count"] == 0
    size = len(json.dumps(await rest(client, "GET", f"/skills/{ID}")))
    for _ in range(9):
        await rest(client, "GET", f"/skills/{ID}")

    after = await stats(client)

    assert after["skill_cache"]["total_requests"] - before["skill_cache"]["total_requests"] == 10
    shown = after["skill_cache"]
    assert shown["hits"] + shown["misses"] == shown["total_requests"]
    assert shown["hit_rate_percent"] == round(100 * shown["hits"] / shown["total_requests"], 2)
    entry = cached(after, ID)
    assert entry["version"] == 1
    assert 0 <= entry["age_seconds"] < 60
    assert entry["age_seconds"] + entry["ttl_remaining"] <= after["ttl_seconds"] + 0.2
    assert 0.5 * size < entry["bytes"] <= size
    assert shown["cached_count"] == 1
    assert {"l1", "l2", "loads", "refused"} <= after.keys(), "what the dashboard shows"


async def test_the_compiled_tool_list_is_made_once_and_anew_after_a_change(
    client: httpx2.AsyncClient, skills: Any
) -> None:
    await rest(client, "POST", "/cache/invalidate", {})
    before = (await stats(client))["tool_list_cache"]
    for _ in range(5):
        tools = (await rest(client, "GET", "/tools"))["items"]
        await mcp_wire.request(client, "tools/list")
    after = (await stats(client))["tool_list_cache"]
    assert after["misses"] - before["misses"] == 2, "one for each form"
    assert after["hits"] - before["hits"] == 8
    assert after["current_cache"]["tool_count"] == len(tools)
    assert after["current_cache"]["skill_count"] == len((await rest(client, "GET", "/skills"))["items"])

    write_skill(skills, "another-one")
    await rest(client, "POST", "/cache/hot-reload", {})
    assert (await stats(client))["tool_list_cache"]["current_cache"] is None


async def test_forgetting_one_skill_leaves_the_others(client: httpx2.AsyncClient) -> None:
    for path in (f"/skills/{ID}", f"/skills/{ID}/versions", f"/skills/{ID}/versions/1", "/skills/main/calculator"):
        await rest(client, "GET", path)
    told = await rest(client, "POST", "/cache/invalidate", {"skill_id": ID})
    assert told == {"skill_id": ID, "invalidated": 3}
    after = await stats(client)
    assert cached(after, ID) is None
    assert cached(after, "main/calculator") is not None
    unknown = await client.post("/api/v1/cache/invalidate", json={"skill_id": "main/nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


async def test_a_reload_by_mcp_takes_what_was_saved_at_once_and_answers_with_its_seq(
    client: httpx2.AsyncClient, skills: Any
) -> None:
    write_skill(skills, "reloaded", "As it was.")
    await rest(client, "POST", "/cache/hot-reload", {})
    assert (await rest(client, "GET", "/skills/main/reloaded"))["description"] == "As it was."

    write_skill(skills, "reloaded", "As it is.")
    call = {"name": "force_skill_reload", "arguments": {"skill_id": "main/reloaded"}}
    result = (await mcp_wire.request(client, "tools/call", call))["result"]

    assert result["isError"] is False
    told = result["structuredContent"]
    assert (told["skill_id"], told["is_watching"]) == ("main/reloaded", True)
    assert told["seq"] == result["_meta"]["dev.skillwire/seq"]
    assert result["_meta"]["dev.skillwire/position"].split("-")[1] == str(told["seq"])
    now = await rest(client, "GET", "/skills/main/reloaded")
    assert now["description"] == "As it is."


async def test_the_four_tools_are_listed_and_called_over_mcp_and_rpc(
    client: httpx2.AsyncClient, service: Service
) -> None:
    listed = {tool["name"] for tool in (await mcp_wire.request(client, "tools/list"))["result"]["tools"]}
    calls = ("get_skill_cache_stats", "invalidate_skill_cache", "force_skill_reload", "trigger_hot_reload")
    assert set(calls) <= listed
    async with websockets.connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket, asyncio.timeout(WAIT_S):
        for number, name in enumerate(calls):
            result = (await mcp_wire.request(client, "tools/call", {"name": name, "arguments": {}}))["result"]
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": name, "params": {}}))
            answer = json.loads(await socket.recv())["result"]
            assert result["structuredContent"].keys() == answer.keys() - {"_meta"}, name


async def test_one_key_is_followed_live(client: httpx2.AsyncClient) -> None:
    await rest(client, "POST", "/cache/invalidate", {"skill_id": ID})
    kinds: list[str] = []
    async with asyncio.timeout(WAIT_S), client.stream("GET", f"/api/v1/cache/trace/detail:{ID}") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: hello"
        await rest(client, "GET", f"/skills/{ID}")
        await rest(client, "GET", f"/skills/{ID}")
        await rest(client, "GET", "/skills/main/calculator")
        await rest(client, "POST", "/cache/invalidate", {"skill_id": ID})
        async for line in lines:
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if "kind" in event:
                assert (event["key"], event["lost"]) == (f"detail:{ID}", 0)
                kinds.append(event["kind"])
                if event["kind"] == "invalidated":
                    break
    assert kinds[0] == "l1_miss"
    assert "l1_hit" in kinds
