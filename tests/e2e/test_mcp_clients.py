"""The official Python client in both eras, over HTTP and stdio: list, read, call, be told."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.e2e.conftest import SAMPLES
from tests.support import listeners
from tests.support.listeners import WAIT_S, Inbox, eventually
from tests.support.service import Service, environment, write_skill

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def over_stdio(skills: Path, mode: str) -> AsyncIterator[tuple[Client, Inbox]]:
    """A client that started its own server, and what it is told."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "gateway", "stdio", "--skills", str(skills), "--data", str(skills.parent / "data")],
        env=environment(scripts_allowed_owners='["main"]', log_level="error"),
    )
    inbox = Inbox()

    async def on_message(message: Any) -> None:
        inbox.put(type(getattr(message, "root", message)).__name__)

    async with Client(server, mode=mode, message_handler=on_message) as client:
        if mode == "legacy":
            yield client, inbox
            return
        async with (
            client.listen(tools_list_changed=True, resources_list_changed=True) as events,
            asyncio.TaskGroup() as group,
        ):

            async def read() -> None:
                async for event in events:
                    inbox.put(type(event).__name__)

            reader = group.create_task(read())
            yield client, inbox
            reader.cancel()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_over_http_lists_reads_calls_and_is_told(service: Service, skills: Path, mode: str) -> None:
    listener = listeners.mcp_modern if mode == "auto" else listeners.mcp_legacy
    async with listener(service.url) as (client, told):
        await _uses_everything(client, told, skills, f"over-http-{mode}")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_over_stdio_lists_reads_calls_and_is_told(tmp_path: Path, mode: str) -> None:
    skills = tmp_path / "skills"
    shutil.copytree(SAMPLES, skills)
    async with over_stdio(skills, mode) as (client, told):
        await eventually(lambda: _lists_tool(client, "main_hello-world_greet"))
        await _uses_everything(client, told, skills, f"over-stdio-{mode}")


async def _uses_everything(client: Client, told: Inbox, skills: Path, name: str) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"search_skills", "load_skill", "read_skill_file", "call_tool", "main_calculator_evaluate"} <= set(tools)
    uris = [resource.uri for resource in (await client.list_resources()).resources]
    uri = next(uri for uri in uris if "/hello-world/" in uri)
    contents = (await client.read_resource(uri)).contents
    assert contents[0].text == (skills / "hello-world" / "SKILL.md").read_text()  # type: ignore[union-attr]
    answer = await client.call_tool("main_calculator_evaluate", {"expression": "6 * 7"})
    assert answer.is_error is False
    assert "42" in str(answer.structured_content)
    loaded = await client.call_tool("load_skill", {"skill": "main/calculator"})
    assert loaded.structured_content is not None
    assert loaded.structured_content["version"] == 1

    folder = write_skill(skills, name)
    await _told(told, "Resource", lambda: _lists_resource(client, name))
    (folder / "run.py").write_text("def run(arguments):\n    return {'ran': True}\n")
    (folder / "tools.json").write_text(
        '{"tools": [{"name": "run", "description": "Runs.", "inputSchema": {"type": "object"},'
        ' "command": ["python", "run.py:run"]}]}'
    )
    await _told(told, "Tool", lambda: _lists_tool(client, f"main_{name}_run"))
    ran = await client.call_tool(f"main_{name}_run", {})
    assert ran.structured_content == {"ran": True}


async def _told(told: Inbox, kind: str, is_true: Callable[[], Awaitable[bool]]) -> None:
    """Until a notice of `kind` has come after which the change can be read; earlier ones may be of the first scan."""
    async with asyncio.timeout(WAIT_S):
        while True:
            await told.next(lambda heard: kind in heard)
            if await is_true():
                return


async def _lists_tool(client: Client, name: str) -> bool:
    return name in [tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools]


async def _lists_resource(client: Client, name: str) -> bool:
    resources = (await client.list_resources(cache_mode="bypass")).resources
    return any(f"/{name}/" in resource.uri for resource in resources)
