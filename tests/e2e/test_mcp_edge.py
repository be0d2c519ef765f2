"""What the edge answers is what the SDK answers, until something changes; and errors are the specification's."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import mcp_wire
from tests.support.listeners import eventually
from tests.support.service import Service, write_skill

pytestmark = pytest.mark.anyio
URI = "skill://main/calculator/SKILL.md"
READS: list[tuple[str, dict[str, Any]]] = [
    ("server/discover", {}),
    ("tools/list", {}),
    ("prompts/list", {}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("skills/list", {}),
    ("skills/get", {"uri": URI}),
    ("resources/read", {"uri": URI}),
    ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/calculator"}}),
    ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/none"}}),
    ("tools/call", {"name": "search_skills", "arguments": {"query": "add numbers", "limit": 1}}),
    ("tools/call", {"name": "search_skills", "arguments": {"limit": "many"}}),
]


async def by_edge(client: httpx2.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if 'mcp_answers_total{by="edge"}' in line)


@pytest.mark.parametrize(("method", "params"), READS)
async def test_the_edge_answers_as_the_sdk_does(service: Service, method: str, params: dict[str, Any]) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:

        async def is_the_same() -> bool:
            before = await by_edge(client)
            kept = await mcp_wire.request(client, method, params)
            # The first is the SDK's; so is one that comes while the log has not been read for half a second.
            if await by_edge(client) != before + 1:
                return False
            # A level of freshness is nothing the edge reads.
            asked = await mcp_wire.request(client, method, params, consistency="bounded")
            assert await by_edge(client) == before + 1
            return kept == asked  # a search goes by meaning as well once vectors have come

        await eventually(is_the_same)


async def test_listed_skills_keep_their_frontmatter_as_it_is(service: Service, skills: Path) -> None:
    package = skills / "frontmatter-of-all-kinds"
    package.mkdir()
    (package / "SKILL.md").write_text(
        '---\nname: frontmatter-of-all-kinds\ndescription: "\u00fc \u6587 \\U0001F600"\nnothing: null\n'
        "metadata:\n  when: 2026-01-02\n  share: 1.5\n  flags: [true, null, {deep: ~}]\n---\nDo it.\n",
        encoding="utf-8",
    )
    async with httpx2.AsyncClient(base_url=service.url) as client:

        async def is_the_same() -> bool:
            before = await by_edge(client)
            mine = await mcp_wire.request(client, "skills/list")
            if await by_edge(client) != before + 1:
                return False
            theirs = await mcp_wire.request(client, "skills/list", consistency="bounded")
            if theirs["result"]["_meta"] != mine["result"]["_meta"]:
                return False  # of another revision: the package came in between
            assert mine == theirs
            return any(entry["frontmatter"]["name"] == package.name for entry in mine["result"]["skills"])

        await eventually(is_the_same)


async def raw_answers(service: Service, request: bytes, times: int) -> list[tuple[list[bytes], bytes]]:
    """Sent in one piece: only a request that comes alone is answered as soon as it was read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request * times)
    answers = []
    for _ in range(times):
        head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:"))
        kept = sorted(line for line in head if not line.startswith((b"date:", b"x-request-id:")))
        answers.append((kept, await reader.readexactly(length)))
    writer.close()
    return answers


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/list", {}),
        ("skills/list", {}),
        ("resources/read", {"uri": URI}),
        ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/calculator"}}),
        ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/none"}}),
        ("tools/call", {"name": "check_operation", "arguments": {"tool": "nothing like it"}}),
    ],
)
async def test_an_answer_given_at_once_is_the_one_that_asgi_gives(
    service: Service, method: str, params: dict[str, Any]
) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": {"_meta": META, **params}}).encode()
    name = params.get("name", params.get("uri"))
    named = f"mcp-name: {name}\r\n" if name else ""
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
        f"content-type: application/json\r\nmcp-protocol-version: {mcp_wire.VERSION}\r\nmcp-method: {method}\r\n"
        f"{named}content-length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    async with httpx2.AsyncClient(base_url=service.url) as client:

        async def is_the_same() -> bool:
            before = await by_edge(client)
            [alone] = await raw_answers(service, request, 1)
            first, second, third = await raw_answers(service, request, 3)
            # Not while the log has not been read for half a second: the SDK answers then.
            return await by_edge(client) == before + 4 and alone == first == second == third

        await eventually(is_the_same)


async def test_a_change_is_in_the_next_answer(service: Service, skills: Path) -> None:
    folder = write_skill(skills, "edge-changes")
    async with httpx2.AsyncClient(base_url=service.url) as client:

        async def digest() -> str | None:
            listed = (await mcp_wire.request(client, "skills/list"))["result"]["skills"]
            entries = {entry["frontmatter"]["name"]: entry for entry in listed}
            entry = entries.get("edge-changes")
            return str(entry["resources"][0]["digest"]) if entry else None

        first = await eventually(digest)
        uri = "skill://main/edge-changes/SKILL.md"
        before = (await mcp_wire.request(client, "resources/read", {"uri": uri}))["result"]
        write_skill(skills, "edge-changes", body="Otherwise.")

        async def changed() -> bool:
            return bool(await digest() != first)

        await eventually(changed)
        after = (await mcp_wire.request(client, "resources/read", {"uri": uri}))["result"]
        assert "Do it." in before["contents"][0]["text"]
        assert "Otherwise." in after["contents"][0]["text"]
    assert (folder / "SKILL.md").exists()


def post(service: Service, body: Any, **changed: str) -> httpx2.Response:
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": mcp_wire.VERSION,
        "mcp-method": "tools/list",
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(f"{service.url}/mcp", content=data, headers=headers, timeout=10)


META = {
    "io.modelcontextprotocol/protocolVersion": mcp_wire.VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}


def ask(method: str = "tools/list", meta: Any = META, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"_meta": meta, **params}}


REFUSED: dict[str, tuple[Any, dict[str, str], int, int]] = {
    "no _meta": ({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}, {}, 400, -32602),
    "no capabilities": (
        ask(meta={"io.modelcontextprotocol/protocolVersion": mcp_wire.VERSION}),
        {},
        400,
        -32602,
    ),
    "another version in the body": (
        ask(meta={**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}),
        {},
        400,
        -32020,
    ),
    "another method in the body": (ask("skills/list"), {}, 400, -32020),
    "another name in the body": (
        ask("resources/read", uri=URI),
        {"mcp_method": "resources/read", "mcp_name": "skill://main/x/SKILL.md"},
        400,
        -32020,
    ),
    "no name": (ask("resources/read", uri=URI), {"mcp_method": "resources/read"}, 400, -32020),
    "an unknown method": (ask("skills/forget"), {"mcp_method": "skills/forget"}, 404, -32601),
    "a batch": ([ask()], {}, 400, -32600),
    "no JSON": (b"{", {}, 400, -32700),
    "an unknown version": (
        ask(meta={**META, "io.modelcontextprotocol/protocolVersion": "2031-01-01"}),
        {"mcp_protocol_version": "2031-01-01"},
        400,
        -32022,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_against_the_rules_is_refused_as_the_specification_says(service: Service, case: str) -> None:
    body, headers, status, code = REFUSED[case]
    answer = post(service, body, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


LISTS: list[tuple[str, dict[str, Any]]] = [
    ("tools/list", {}),
    ("prompts/list", {}),
    ("resources/list", {}),
    ("resources/templates/list", {}),
    ("skills/list", {}),
    ("resources/directory/read", {"uri": "skill://main/calculator"}),
]


@pytest.mark.parametrize("method", [method for method, params in LISTS if not params])
async def test_every_list_says_the_revision_and_is_as_fresh_as_was_asked(service: Service, method: str) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        known = (await mcp_wire.request(client, "skills/list"))["result"]
        listed = (await mcp_wire.request(client, method))["result"]
        refused = await mcp_wire.request(client, method, consistency="session=999999")
    # A new ranking is a change of the tools alone.
    assert listed["_meta"]["dev.skillwire/revision"] >= known["_meta"]["dev.skillwire/revision"]
    assert refused["error"]["data"]["code"] == "not_yet"


@pytest.mark.parametrize(("method", "params"), LISTS)
@pytest.mark.parametrize("cursor", ["", "junk"])
async def test_a_cursor_that_was_not_given_out_is_refused_whatever_is_kept(
    service: Service, method: str, params: dict[str, Any], cursor: str
) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        assert "result" in await mcp_wire.request(client, method, params)  # kept from now on
        answer = await client.post(**mcp_wire.composed(method, {**params, "cursor": cursor}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32602)
    assert answer.json()["error"]["message"].endswith("list again without one")


@pytest.mark.parametrize(
    ("method", "params"), [READS[1], ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/calculator"}})]
)
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"content_type": "text/plain"}, 400),
        ({"accept": "application/jsonx, text/event-streamy"}, 406),
    ],
)
async def test_types_that_the_sdk_refuses_are_refused_whatever_is_kept(
    service: Service, method: str, params: dict[str, Any], changed: dict[str, str], status: int
) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        assert "result" in await mcp_wire.request(client, method, params)  # kept from now on
    named = {"mcp_name": params["name"]} if "name" in params else {}
    answer = post(service, ask(method, **params), mcp_method=method, **named, **changed)
    assert answer.status_code == status


@pytest.mark.parametrize(("more", "status"), [({}, 429), ({"consistency": "bounded"}, 200)], ids=["edge", "sdk"])
async def test_a_stream_that_would_watch_too_much_is_not_told_to_come_back(
    service: Service, more: dict[str, Any], status: int
) -> None:
    wanted = {"notifications": {"resourceSubscriptions": [f"skill://main/a/{number}" for number in range(1001)]}}
    async with httpx2.AsyncClient(base_url=service.url, timeout=10) as client:
        answer = await client.post(**mcp_wire.composed("subscriptions/listen", wanted, **more))
        assert (answer.status_code, "retry-after" in answer.headers) == (status, False)
        error = (await mcp_wire.request(client, "subscriptions/listen", wanted, **more))["error"]
    assert (error["code"], error["data"]) == (-32029, {"code": "too_many_watched"})


@pytest.mark.parametrize("member", ["resourceSubscriptions", "taskIds"])
async def test_half_a_surrogate_pair_is_no_name_of_what_to_watch(service: Service, member: str) -> None:
    wanted = {"notifications": {member: ["\ud800"]}}
    tasks: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    composed = mcp_wire.composed("subscriptions/listen", wanted, capabilities=tasks)
    data = json.dumps(composed.pop("json")).encode()
    headers = {**composed.pop("headers"), "content-type": "application/json"}
    async with (
        httpx2.AsyncClient(base_url=service.url, timeout=10) as client,
        client.stream("POST", **composed, content=data, headers=headers) as answer,
    ):
        line = await anext(line async for line in answer.aiter_lines() if "{" in line)
    error = json.loads(line.removeprefix("data: "))["error"]
    assert (error["code"], "surrogate" in error["message"]) == (-32602, True)


async def test_a_directory_says_the_types_that_files_are_read_with(service: Service) -> None:
    said = {}
    async with httpx2.AsyncClient(base_url=service.url) as client:
        for uri in ("skill://main/calculator", "skill://main/calculator/scripts"):
            listed = (await mcp_wire.request(client, "resources/directory/read", {"uri": uri}))["result"]["resources"]
            for child in listed:
                said[child["name"]] = child.get("mimeType")
                if said[child["name"]] == "inode/directory":
                    continue
                read = (await mcp_wire.request(client, "resources/read", {"uri": child["uri"]}))["result"]
                assert said[child["name"]] in (read["contents"][0]["mimeType"], None)
    assert said == {
        "calculator": "text/markdown",
        "tools.json": "application/json",
        "scripts": "inode/directory",
        # Whether it is text is known once it is read.
        "calculator.py": None,
        "numbers_text.py": None,
        "units.py": None,
    }


def test_an_unknown_uri_is_named_with_its_error(service: Service) -> None:
    for uri in (
        "skill://main/none/SKILL.md",
        "skill://main/calculator/none.md",
        "skill://main/@99/calculator/SKILL.md",
        f"skill://main/calculator/{'a' * 2000}",
    ):
        answer = post(service, ask("resources/read", uri=uri), mcp_method="resources/read", mcp_name=uri)
        error = answer.json()["error"]
        assert (error["code"], error["data"]["uri"]) == (-32602, uri)


ODD_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("read_skill_file", {"skill": "main/calculator", "path": "a" * 2000}, "path: "),
    ("read_skill_file", {"skill": "main/calculator", "path": "SKILL.md", "version": 2**63}, "version: "),
    ("read_skill_file", {"skill": f"main/{'a' * 65}", "path": "SKILL.md"}, "name: "),
    ("load_skill", {"skill": "main/calculator", "version": 2**63}, "version: "),
    ("call_tool", {"tool": ""}, "tool: "),
    ("call_tool", {"tool": "a" * 500}, "tool: "),
]


@pytest.mark.parametrize(("name", "arguments", "says"), ODD_CALLS)
@pytest.mark.parametrize("more", [{}, {"consistency": "bounded"}], ids=["edge", "sdk"])
async def test_a_call_with_odd_arguments_fails_and_says_which(
    service: Service, name: str, arguments: dict[str, Any], says: str, more: dict[str, str]
) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        answer = await mcp_wire.request(client, "tools/call", {"name": name, "arguments": arguments}, **more)
    result = answer["result"]
    assert (result["isError"], result["_meta"]["dev.skillwire/code"]) == (True, "invalid")
    assert result["content"][0]["text"].startswith(says)


# What the header is that the body does not agree with.
MISMATCHES = {
    "another version in the body": "mcp-protocol-version",
    "another method in the body": "mcp-method",
    "another name in the body": "mcp-name",
    "no name": "mcp-name",
}


@pytest.mark.parametrize("case", [*MISMATCHES, "an unknown version"])
@pytest.mark.parametrize("more", [{}, {"dev.skillwire/consistency": "bounded"}], ids=["edge", "sdk"])
async def test_an_error_of_the_specification_has_exactly_its_members(
    service: Service, case: str, more: dict[str, str]
) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        for method, params in READS[:8]:
            assert "result" in await mcp_wire.request(client, method, params)  # kept from now on
    body, headers, status, code = REFUSED[case]
    asked = {**body, "params": {**body["params"], "_meta": {**body["params"]["_meta"], **more}}}
    answer = post(service, asked, **headers)
    error = answer.json()["error"]
    assert answer.json() == {"jsonrpc": "2.0", "id": 7, "error": error}
    assert (answer.status_code, error["code"]) == (status, code)
    if case in MISMATCHES:
        assert MISMATCHES[case] in error["message"]
        assert error.keys() == {"code", "message"}
    else:
        assert error["data"] == {"supported": [mcp_wire.VERSION], "requested": "2031-01-01"}


@pytest.mark.parametrize("path", ["/mcp", "/api/v1/search"])
def test_an_oversized_body_whose_length_nobody_said_is_refused(service: Service, path: str) -> None:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    wire = {"mcp-protocol-version": mcp_wire.VERSION, "mcp-method": "tools/list"}
    pieces = (b" " * 1024 * 1024 for _ in range(34))
    answer = httpx2.post(f"{service.url}{path}", content=pieces, headers={**headers, **wire}, timeout=20)
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 413


def test_a_foreign_origin_or_host_and_an_oversized_body_are_refused(service: Service) -> None:
    assert post(service, ask(), origin="https://elsewhere.example").status_code == 403
    assert post(service, ask(), host="elsewhere.example").status_code == 421
    assert post(service, b" " * (34 * 1024 * 1024)).status_code == 413


def test_get_is_not_allowed_on_the_stateless_wire(service: Service) -> None:
    headers = {"mcp-protocol-version": mcp_wire.VERSION, "accept": "text/event-stream"}
    assert httpx2.get(f"{service.url}/mcp", headers=headers, timeout=5).status_code == 405
