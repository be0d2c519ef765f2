"""Which requests the edge may answer itself, and that it leaves every other one as it came."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from gateway.mcp.edge import PATH, McpEdge
from gateway.mcp.plain import BODY_BYTES_MAX, parse, routing_of, trimmed
from gateway.mcp.streams import ListenStreams
from gateway.principal import LOCAL
from gateway.replica import Replica
from tests.support.mcp_wire import VERSION

META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
URI = "skill://main/one/SKILL.md"


def headers(method: str, name: str = "", **changed: str) -> list[tuple[bytes, bytes]]:
    values = {
        "accept": "application/json, text/event-stream",
        "content-length": "10",
        "content-type": "application/json",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
        **({"mcp-name": name} if name else {}),
        **{key.replace("_", "-"): value for key, value in changed.items()},
    }
    return [(key.encode(), value.encode()) for key, value in values.items()]


def body(method: str, params: dict[str, Any] | None = None, meta: Any = META, **changed: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **(params or {})}}
    return msgspec.json.encode(request | changed)


def parsed(given_headers: list[tuple[bytes, bytes]], given_body: bytes) -> Any:
    routing = routing_of(trimmed(given_headers))
    return None if routing is None else parse(given_body, routing)


@pytest.mark.parametrize(
    ("method", "params", "name", "argument"),
    [
        ("server/discover", {}, "", ""),
        ("tools/list", {}, "", ""),
        ("skills/list", {"cursor": "main/a"}, "", "main/a"),
        ("skills/get", {"uri": URI}, "", URI),
        ("resources/read", {"uri": URI}, URI, URI),
        ("tools/call", {"name": "load_skill", "arguments": {"skill": "main/one"}}, "load_skill", "load_skill"),
    ],
)
def test_the_plain_form_is_read(method: str, params: dict[str, Any], name: str, argument: str) -> None:
    ask = parsed(headers(method, name), body(method, params))
    assert ask is not None
    assert (ask.id, ask.method, ask.argument) == (b"1", method, argument)


def test_white_space_around_header_values_is_no_part_of_them() -> None:
    assert parsed([(key, b" \t" + value + b" ") for key, value in headers("tools/list")], body("tools/list"))


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
@pytest.mark.parametrize("accept", ["text/event-stream,application/json", "Application/JSON;q=1 , text/event-stream"])
def test_types_are_read_as_http_has_them(content_type: str, accept: str) -> None:
    assert parsed(headers("tools/list", content_type=content_type, accept=accept), body("tools/list"))


LIST = headers("tools/list")
UNUSUAL = {
    "another version": (headers("tools/list", mcp_protocol_version="2025-11-25"), body("tools/list")),
    "a session": (headers("tools/list", mcp_session_id="s"), body("tools/list")),
    "a parameter header": (headers("tools/list", mcp_param_region="x"), body("tools/list")),
    "a header twice": ([*LIST, LIST[3]], body("tools/list")),
    "another method in the body": (LIST, body("skills/list")),
    "a method not kept": (headers("completion/complete"), body("completion/complete")),
    "no stream accepted": (headers("tools/list", accept="application/json"), body("tools/list")),
    "types that only look like it": (
        headers("tools/list", accept="application/jsonx, text/event-streamy"),
        body("tools/list"),
    ),
    "another type of body": (headers("tools/list", content_type="text/plain"), body("tools/list")),
    "no type of body": ([each for each in LIST if each[0] != b"content-type"], body("tools/list")),
    "a large body": (headers("tools/list", content_length=str(BODY_BYTES_MAX + 1)), body("tools/list")),
    "a length of many digits": (headers("tools/list", content_length="0" * 5000 + "10"), body("tools/list")),
    "a length that is none": (headers("tools/list", content_length="-1"), body("tools/list")),
    "no meta": (LIST, b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'),
    "a level of freshness": (LIST, body("tools/list", meta={**META, "dev.skillwire/consistency": "linearizable"})),
    "capabilities that are none": (
        LIST,
        body("tools/list", meta={**META, "io.modelcontextprotocol/clientCapabilities": []}),
    ),
    "a notification": (LIST, msgspec.json.encode({"jsonrpc": "2.0", "method": "tools/list"})),
    "a fraction as id": (LIST, body("tools/list", id=1.5)),
    "null as id": (LIST, body("tools/list", id=None)),
    "true as id": (LIST, body("tools/list", id=True)),
    "a batch": (LIST, b"[" + body("tools/list") + b"]"),
    "a member too many": (LIST, body("tools/list", more=1)),
    "a cursor where there is none": (LIST, body("tools/list", {"cursor": "x"})),
    "an empty cursor": (headers("skills/list"), body("skills/list", {"cursor": ""})),
    "another name in the header": (headers("resources/read", "skill://x/y/z"), body("resources/read", {"uri": URI})),
    "no name in the header": (headers("resources/read"), body("resources/read", {"uri": URI})),
    "a name in base64": (headers("resources/read", "=?base64?eA==?="), body("resources/read", {"uri": URI})),
    "a URI of a package's own": (
        headers("resources/read", "main://x"),
        body("resources/read", {"uri": "main://x"}),
    ),
    "answers to questions": (
        headers("tools/call", "load_skill"),
        body("tools/call", {"name": "load_skill", "inputResponses": {}}),
    ),
    "no JSON": (LIST, b"\xff{"),
    "no text": (LIST, body("tools/list", id="x").replace(b'"x"', b'"\xff"')),
    "deep": (LIST, b"[" * 30_000),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_everything_unusual_is_left_to_the_sdk(case: str) -> None:
    assert parsed(*UNUSUAL[case]) is None


@pytest.mark.anyio
async def test_a_stream_for_which_there_is_no_room_is_told_when_to_come_back() -> None:
    async def nowhere(*_: Any) -> None:
        raise AssertionError("somebody else saw it")

    replica = cast(Replica, SimpleNamespace(version="0", view=None, feed=None, runs=None))
    edge = McpEdge(nowhere, nowhere, replica, ListenStreams(streams_max=0))
    asked = body("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": asked}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "POST", "path": PATH, "state": {"principal": LOCAL}}
    await edge({**scope, "headers": headers("subscriptions/listen")}, receive, send)
    start, part = sent
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (429, b"1")
    error = msgspec.json.decode(part["body"])["error"]
    assert (error["code"], error["data"]) == (-32029, {"code": "too_many_streams", "retryAfterMs": 1000})


@given(st.binary(max_size=200))
def test_no_body_makes_the_edge_fail(data: bytes) -> None:
    routing = routing_of(LIST)
    assert routing is not None
    parse(data, routing)
