"""What packages serve beside tools, and tools that ask their client, over the official client in both eras."""

from collections.abc import Iterator
from typing import Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from tests.conformance.service import pack_served
from tests.support import mcp_wire
from tests.support.listeners import eventually
from tests.support.service import Service, get

pytestmark = pytest.mark.anyio
PROMPT = """---
name: greet-politely
description: Greets a person.
user-invocable: true
arguments: [person, tone]
---
Greet $person in a $tone tone.
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with pack_served() as started:
        yield started


async def _answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
    assert context is not None
    assert params.message
    return types.ElicitResult(action="accept", content={"name": "Ada", "color": "green", "ok": True, "context": "c"})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_tool_asks_twice_and_remembers_in_between(service: Service, mode: Any) -> None:
    async with Client(f"{service.url}/mcp", mode=mode, elicitation_callback=_answer) as client:
        answer = await client.call_tool("test_input_required_result_multi_round", {})
        assert answer.content[0].text == "Ada likes green"  # type: ignore[union-attr]
        prompt = await client.get_prompt("test_input_required_result_prompt")
        assert prompt.messages[0].content.text == "Use this context: c"  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_cannot_be_asked_is_told_what_is_missing(service: Service, mode: Any) -> None:
    async with Client(f"{service.url}/mcp", mode=mode) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("test_input_required_result_elicitation", {})
        assert refused.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
        assert refused.value.data == {"requiredCapabilities": {"elicitation": {}}}


async def test_a_tool_that_fails_on_an_answer_fails_as_any_other(service: Service) -> None:
    responses = {"inputResponses": {"capital_question": {"action": "accept"}}}
    async with httpx2.AsyncClient(base_url=service.url) as client:
        params = {"name": "test_input_required_result_sampling", "arguments": {}, **responses}
        result = (await mcp_wire.request(client, "tools/call", params))["result"]
    assert result["isError"] is True
    assert result["_meta"]["dev.skillwire/code"] == "tool_failed"


async def test_a_tool_that_has_to_ask_cannot_be_called_over_rest(service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        answer = await client.post("/api/v1/tools/test_input_required_result_elicitation/call", json={})
        assert (answer.status_code, answer.json()["code"]) == (502, "input_required")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_is_told_before_the_answer(service: Service, mode: Any) -> None:
    told: list[float] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (100, None)
        told.append(progress)

    async with Client(f"{service.url}/mcp", mode=mode) as client:
        await client.call_tool("test_tool_with_progress", {}, progress_callback=progressed)
    assert told == [0, 50, 100]


async def test_declared_resources_are_listed_read_and_unknown_ones_named(service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        read = (await mcp_wire.request(client, "resources/read", {"uri": "test://template/9/data"}))["result"]
        assert '"id": "9"' in read["contents"][0]["text"]
        assert read["contents"][0]["_meta"]["dev.skillwire/version"] == 1
        unknown = (await mcp_wire.request(client, "resources/read", {"uri": "json://static-text"}))["error"]
        assert (unknown["code"], unknown["data"]) == (-32602, {"uri": "json://static-text"})


async def test_a_user_invocable_skill_is_a_prompt_with_its_arguments_filled_in(service: Service) -> None:
    zipped = mcp_wire.zipped({"SKILL.md": PROMPT})
    async with (
        httpx2.AsyncClient(base_url=service.url) as client,
        Client(f"{service.url}/mcp") as mcp,
        mcp.listen(prompts_list_changed=True) as events,
    ):
        answer = await client.post("/api/v1/skills", files={"file": ("s.zip", zipped)}, data={"owner": "json"})
        assert answer.status_code == 201
        assert type(await anext(aiter(events))).__name__ == "PromptsListChanged"
        listed = {prompt.name: prompt for prompt in (await mcp.list_prompts(cache_mode="bypass")).prompts}
        assert [each.name for each in listed["json_greet-politely"].arguments or ()] == ["person", "tone"]
        got = await mcp.get_prompt("json_greet-politely", {"person": "Ada", "tone": "warm"})
        assert got.messages[0].content.text == "Greet Ada in a warm tone."  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="tone"):
            await mcp.get_prompt("json_greet-politely", {"person": "Ada"})
    logged = await eventually(lambda: _logged(service))
    assert (logged["target"], logged["version"]) == ("prompts/get", 1)


async def _logged(service: Service) -> dict[str, Any] | None:
    items: Any = get(service, "/invocations", skill="json/greet-politely")["items"]
    return items[0] if items else None


async def test_completion_knows_owners_names_and_paths(service: Service) -> None:
    template = types.ResourceTemplateReference(uri="skill://{owner}/{name}/{+path}")
    async with Client(f"{service.url}/mcp") as client:
        owners = await client.complete(template, {"name": "owner", "value": "t"})
        assert owners.completion.values == ["test"]
        names = await client.complete(template, {"name": "name", "value": "si"}, {"owner": "test"})
        assert names.completion.values == ["simple"]
        place = {"owner": "test", "name": "simple"}
        paths = await client.complete(template, {"name": "path", "value": ""}, place)
        assert paths.completion.values == ["SKILL.md", "run.py", "tools.json"]
