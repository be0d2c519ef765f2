"""How fresh an answer must be, asked over REST, RPC and MCP of a replica that did not take the write."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import websockets

from tests.support import listeners, mcp_wire
from tests.support.restored import back_up, restore
from tests.support.service import Service, running

pytestmark = pytest.mark.anyio

WAIT_S = 5.0
# The longest tail interval there is and no hints: what a replica shows at once, it was made to know.
SLOW = {"tail_interval_s": "0.4", "redis_url": "off", "embedder": "off", "watch": "off"}


class Pair(NamedTuple):
    writer: Service
    reader: Service
    data: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("levels")
    with (
        running(folder / "skills", folder / "data", **SLOW) as writer,
        running(folder / "skills", folder / "data", **SLOW) as reader,
    ):
        yield Pair(writer, reader, folder / "data")


@pytest.fixture
async def reader(pair: Pair) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=pair.reader.url, timeout=WAIT_S) as client:
        yield client


async def publish(service: Service, name: str, description: str = "Does it.") -> httpx2.Response:
    buffer = io.BytesIO()
    tool = {"name": "run", "description": "Runs.", "inputSchema": {"type": "object"}, "command": ["true"]}
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("SKILL.md", f"---\nname: {name}\ndescription: {description}\n---\n\nDo it.\n")
        archive.writestr("tools.json", json.dumps({"tools": [tool]}))
    async with httpx2.AsyncClient(base_url=service.url, timeout=WAIT_S) as client:
        answer = await client.post("/api/v1/skills", files={"file": ("p.zip", buffer.getvalue(), "application/zip")})
    assert answer.status_code == 201, answer.text
    return answer


async def rpc(service: Service, method: str, params: dict[str, Any]) -> dict[str, Any]:
    async with websockets.connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket, asyncio.timeout(WAIT_S):
        await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        answer: dict[str, Any] = json.loads(await socket.recv())
        return answer


@pytest.mark.parametrize("form", ["seq", "id"])
async def test_a_write_is_read_on_another_replica_by_the_seq_or_the_position_it_was_answered_with(
    pair: Pair, reader: httpx2.AsyncClient, form: str
) -> None:
    for turn in range(5):
        written = await publish(pair.writer, f"session-{form}", f"Turn {turn}.")
        place = written.headers["x-seq"] if form == "seq" else written.headers["x-position"]
        assert written.headers["x-seq"] == str(written.json()["data"]["seq"])
        assert int(written.headers["x-position"].split("-")[1]) >= int(written.headers["x-seq"])
        level = {"x-consistency": f"session={place}"}
        listed = await reader.get("/api/v1/skills?limit=500", headers=level)
        shown = {item["name"]: item["description"] for item in listed.json()["data"]["items"]}
        assert shown[f"session-{form}"] == f"Turn {turn}."
        detail = await reader.get(f"/api/v1/skills/main/session-{form}", headers=level)
        assert detail.json()["data"]["description"] == f"Turn {turn}."


async def test_a_linearizable_read_shows_every_write_that_was_answered_before_it(
    pair: Pair, reader: httpx2.AsyncClient
) -> None:
    level = {"x-consistency": "linearizable"}
    for turn in range(5):
        await publish(pair.writer, "exact", f"Turn {turn}.")
        for path in ("", "/versions", f"/versions/{turn + 1}"):
            data = (await reader.get(f"/api/v1/skills/main/exact{path}", headers=level)).json()["data"]
            newest = data["items"][0] if path == "/versions" else data
            assert newest["description"] == f"Turn {turn}."
        tools = await reader.get("/api/v1/tools", headers=level)
        versions = {tool["name"]: tool["version"] for tool in tools.json()["data"]["items"]}
        assert versions["main_exact_run"] == turn + 1


async def test_mcp_requests_carry_the_level_in_their_meta(pair: Pair, reader: httpx2.AsyncClient) -> None:
    for turn in range(3):
        seq = (await publish(pair.writer, "over-mcp", f"Turn {turn}.")).headers["x-seq"]
        for level in (f"session={seq}", "linearizable"):
            listed = await mcp_wire.request(reader, "skills/list", consistency=level)
            [entry] = [each for each in listed["result"]["skills"] if each["frontmatter"]["name"] == "over-mcp"]
            assert entry["frontmatter"]["description"] == f"Turn {turn}."
            tools = await mcp_wire.request(reader, "tools/list", consistency=level)
            [tool] = [each for each in tools["result"]["tools"] if each["name"] == "main_over-mcp_run"]
            assert tool["_meta"]["dev.skillwire/version"] == turn + 1
            uri = "skill://main/over-mcp/SKILL.md"
            read = await mcp_wire.request(reader, "resources/read", {"uri": uri}, consistency=level)
            assert f"Turn {turn}." in read["result"]["contents"][0]["text"]
            got = await mcp_wire.request(reader, "skills/get", {"uri": uri}, consistency=level)
            assert got["result"]["skill"]["_meta"]["dev.skillwire/version"] == turn + 1
            call = {"name": "load_skill", "arguments": {"skill": "main/over-mcp"}}
            loaded = await mcp_wire.request(reader, "tools/call", call, consistency=level)
            assert loaded["result"]["structuredContent"]["version"] == turn + 1


async def test_rpc_calls_carry_the_level_and_writes_answer_with_their_seq(pair: Pair) -> None:
    await publish(pair.writer, "over-rpc", "First.")
    await publish(pair.writer, "over-rpc", "Second.")
    written = await rpc(pair.writer, "rollback", {"owner": "main", "name": "over-rpc", "version": 1})
    meta = written["result"]["_meta"]
    assert meta["dev.skillwire/seq"] == written["result"]["seq"]
    for place in (meta["dev.skillwire/seq"], meta["dev.skillwire/position"]):
        params = {"owner": "main", "name": "over-rpc", "_meta": {"consistency": f"session={place}"}}
        assert (await rpc(pair.reader, "get_skill", params))["result"]["version"] == 1
    assert "_meta" not in (await rpc(pair.reader, "get_skill", params))["result"]


@pytest.mark.parametrize("what", ["", "/versions", "/versions/1", "/files/SKILL.md", "/logs"])
async def test_not_found_is_said_only_after_a_tail(pair: Pair, reader: httpx2.AsyncClient, what: str) -> None:
    name = f"just-now{what.replace('/', '-').replace('.', '-').lower()}"
    await publish(pair.writer, name)
    answer = await reader.get(f"/api/v1/skills/main/{name}{what}")
    assert answer.status_code == 200, answer.text


async def test_a_tool_published_a_moment_ago_elsewhere_can_be_called(pair: Pair, reader: httpx2.AsyncClient) -> None:
    await publish(pair.writer, "tool-just-now")
    answer = await reader.post("/api/v1/tools/main_tool-just-now_run/call", json={})
    assert answer.json()["code"] != "not_found"
    await publish(pair.writer, "tool-just-now-too")
    call = {"name": "main_tool-just-now-too_run", "arguments": {}}
    assert "error" not in await mcp_wire.request(reader, "tools/call", call)


async def test_bad_levels_and_places_that_do_not_exist_are_refused_alike_on_every_edge(
    pair: Pair, reader: httpx2.AsyncClient
) -> None:
    head = await reader.get("/api/v1/status", headers={"x-consistency": "linearizable"})
    epoch, seq, _ = head.json()["data"]["position"].split("-")
    for level, status, code, number in (
        ("strictly", 400, "bad_consistency", -32602),
        (f"session={int(seq) + 1000}", 503, "not_yet", -32010),
        (f"session=00000000-{seq}-00000000", 409, "unknown_epoch", -32009),
        (f"session={epoch}-1-00000000", 409, "unknown_epoch", -32009),
    ):
        refused = await reader.get("/api/v1/skills", headers={"x-consistency": level})
        assert (refused.status_code, refused.json()["code"]) == (status, code), level
        error = (await rpc(pair.reader, "list_skills", {"_meta": {"consistency": level}}))["error"]
        assert (error["code"], error["data"]["code"]) == (number, code), level
        error = (await mcp_wire.request(reader, "skills/list", consistency=level))["error"]
        assert (error["code"], error["data"]["code"]) == (number, code), level


async def test_after_a_restore_under_running_replicas_nothing_of_the_old_history_is_believed(
    pair: Pair, reader: httpx2.AsyncClient
) -> None:
    database = pair.data / "skillwire.db"
    await publish(pair.writer, "kept", "As it was backed up.")
    backup = back_up(database, pair.data / "backup.db")
    lost = await publish(pair.writer, "kept", "Lost.")
    old = {"x-consistency": f"session={lost.headers['x-position']}"}
    before = await reader.get("/api/v1/skills/main/kept", headers=old)
    assert before.json()["data"]["description"] == "Lost."

    restore(database, backup)
    epoch = lost.headers["x-position"].split("-")[0]
    await listeners.eventually(lambda: has_left(pair.writer, epoch))
    again = await publish(pair.writer, "kept", "After the restore.")
    exact = {"x-consistency": f"session={again.headers['x-position']}", "if-none-match": before.headers["etag"]}
    after = await reader.get("/api/v1/skills/main/kept", headers=exact)
    assert (after.status_code, after.json()["data"]["version"]) == (200, 2)
    assert after.json()["data"]["description"] == "After the restore."
    refused = await reader.get("/api/v1/skills/main/kept", headers=old)
    assert (refused.status_code, refused.json()["code"]) == (409, "unknown_epoch")


async def has_left(service: Service, epoch: str) -> bool:
    """True once this replica follows another history than `epoch`'s."""
    async with httpx2.AsyncClient(base_url=service.url, timeout=WAIT_S) as client:
        answer = await client.get("/api/v1/status")
    return not str(answer.json()["data"]["position"]).startswith(f"{epoch}-")
