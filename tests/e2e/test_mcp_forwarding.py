"""Clients of 2025-11-25 before replicas that take turns: a session lives in one, and is served by any."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.e2e.test_mcp_replicas import publish
from tests.support.listeners import WAIT_S, Inbox, eventually
from tests.support.proxy import taking_turns
from tests.support.service import START_S, Service, running

pytestmark = pytest.mark.anyio
KEY = "k" * 40
LEGACY = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2025-11-25",
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}


@asynccontextmanager
async def through(url: str) -> AsyncIterator[tuple[Client, Inbox]]:
    """A legacy client that opens a connection for every request, so that the replicas take turns."""
    told = Inbox()

    async def on_message(message: Any) -> None:
        if not isinstance(message, Exception):
            told.put(getattr(message, "root", message))

    async with (
        httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0), timeout=30) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="legacy", message_handler=on_message) as it,
    ):
        yield it, told


async def begin(client: httpx2.AsyncClient, url: str) -> str:
    """A session's id."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    begun = await client.post(f"{url}/mcp", json=body, headers=LEGACY)
    assert begun.status_code == 200, begun.text
    session: str = begun.headers["mcp-session-id"]
    done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    await client.post(f"{url}/mcp", json=done, headers=LEGACY | {"mcp-session-id": session})
    return session


async def listed(client: httpx2.AsyncClient, url: str, session: str, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"{url}/mcp", json=LIST, headers=LEGACY | {"mcp-session-id": session} | named)


def forwarded(service: Service, outcome: str) -> float:
    text = httpx2.get(f"{service.url}/metrics", timeout=WAIT_S).text
    found = re.search(rf'^skillwire_mcp_forwarded_total{{outcome="{outcome}"}} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_a_legacy_client_that_meets_either_replica_lists_reads_calls_and_is_told(
    replicas: list[Service],
) -> None:
    async with taking_turns([each.port for each in replicas]) as url, through(url) as (client, told):
        for _ in range(4):
            assert "main_calculator_evaluate" in {tool.name for tool in (await client.list_tools()).tools}
            answer = await client.call_tool("main_calculator_evaluate", {"expression": "6 * 7"})
            assert "42" in str(answer.structured_content)
            read = await client.read_resource("skill://main/calculator/SKILL.md")
            assert read.contents[0].text.startswith("---")  # type: ignore[union-attr]
        for number, replica in enumerate(replicas):
            await publish(replica, f"told-{number}", "First.")
            await told.next(lambda heard: heard.method == "notifications/resources/list_changed")
            names = {str(each.uri) for each in (await client.list_resources()).resources}
            assert any(f"/told-{number}/" in name for name in names)
            uri = f"skill://main/told-{number}/SKILL.md"
            with pytest.warns(MCPDeprecationWarning):  # it is what clients of that era have
                await client.subscribe_resource(uri)
            told.clear()
            await publish(replicas[1 - number], f"told-{number}", "Then.")
            await told.next(lambda heard, uri=uri: getattr(heard.params, "uri", None) == uri)
    assert sum([forwarded(each, "relayed") for each in replicas]) >= 4
    assert sum([forwarded(each, "gone") for each in replicas]) == 0


async def test_a_client_that_leaves_takes_its_stream_on_the_other_replica_with_it(replicas: list[Service]) -> None:
    one, other = replicas
    async with httpx2.AsyncClient(timeout=WAIT_S) as client:
        session = await begin(client, one.url)
        headers = LEGACY | {"mcp-session-id": session, "accept": "text/event-stream"}
        async with client.stream("GET", f"{other.url}/mcp", headers=headers) as stream:
            assert stream.status_code == 200
            taken = await client.get(f"{one.url}/mcp", headers=headers)
            assert taken.status_code == 409, "a session has one such stream"

        async def free() -> bool:
            async with client.stream("GET", f"{other.url}/mcp", headers=headers) as stream:
                return stream.status_code == 200

        assert await eventually(free)


async def changes(stream: httpx2.Response) -> AsyncGenerator[tuple[str, str], None]:
    """Ids and methods of what comes on a stream."""
    event_id = ""
    async for line in stream.aiter_lines():
        if line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: {"):  # an empty one names a place alone
            yield event_id, json.loads(line.removeprefix("data: "))["method"]


async def test_a_client_that_hung_up_comes_back_to_any_replica_for_what_it_missed(replicas: list[Service]) -> None:
    one, other = replicas
    changed = "notifications/resources/list_changed"
    async with asyncio.timeout(START_S), httpx2.AsyncClient(timeout=START_S) as client:
        session = await begin(client, one.url)
        headers = LEGACY | {"mcp-session-id": session, "accept": "text/event-stream"}

        async def heard(url: str, last: str | None = None) -> tuple[str, str]:
            """The first change on a stream that is then cut off."""
            resumed = {} if last is None else {"last-event-id": last}
            async with client.stream("GET", f"{url}/mcp", headers=headers | resumed) as stream:
                assert stream.status_code == 200
                if last is None:
                    await publish(one, "seen-in-time", "Then.")
                async with aclosing(changes(stream)) as said:
                    async for event_id, method in said:
                        if method == changed:
                            return event_id, method
            raise AssertionError("the stream ended")

        place, _ = await heard(one.url)
        async with through(other.url) as (_, told):
            await publish(other, "missed", "Then.")
            await told.next(lambda heard: getattr(heard, "method", "") == changed)

        async def resumed() -> bool:
            """The server may not have noticed yet that the stream is cut off."""
            try:
                missed, _ = await heard(other.url, place)
            except AssertionError:
                return False
            assert missed != place
            return True

        assert await eventually(resumed)

        async def told_of_everything() -> bool:
            try:
                return (await heard(one.url, "1000000-get"))[1] == changed
            except AssertionError:
                return False

        assert await eventually(told_of_everything), "its place is gone"
        assert (await client.request("DELETE", f"{one.url}/mcp", headers=headers)).status_code == 200


@pytest.mark.parametrize("named", ["2025-11-25", "2025-03-26", None])
async def test_a_session_is_answered_in_the_version_it_negotiated(replicas: list[Service], named: str | None) -> None:
    async with httpx2.AsyncClient(timeout=10) as client:
        session = await begin(client, replicas[0].url)
        headers = {name: value for name, value in LEGACY.items() if name != "mcp-protocol-version"}
        headers |= {"mcp-session-id": session} | ({"mcp-protocol-version": named} if named else {})
        for each in replicas:
            answer = await client.post(f"{each.url}/mcp", json=LIST, headers=headers)
            # A place to come back to, which clients of before 2025-11-25 cannot read.
            assert re.match(r"id: [^\r\n]+\r?\n(data: ?\r?\n)?retry: 500", answer.text), answer.text[:80]
        wrong = await client.post(
            f"{replicas[0].url}/mcp", json=LIST, headers=headers | {"mcp-protocol-version": "1999"}
        )
        assert wrong.status_code == 400


async def test_a_session_ends_on_any_replica_and_is_then_found_on_none(replicas: list[Service]) -> None:
    one, other = replicas
    async with httpx2.AsyncClient(timeout=WAIT_S) as client:
        session = await begin(client, one.url)
        assert (await listed(client, other.url, session)).status_code == 200
        ended = await client.request("DELETE", f"{other.url}/mcp", headers=LEGACY | {"mcp-session-id": session})
        assert ended.status_code == 200
        for each in replicas:
            assert (await listed(client, each.url, session)).status_code == 404


async def test_a_dead_replicas_session_is_not_found_so_that_its_client_begins_anew(skills: Path) -> None:
    with running(skills, skills.parent / "data") as doomed, running(skills, skills.parent / "data") as other:
        async with httpx2.AsyncClient(timeout=WAIT_S) as client:
            session = await begin(client, doomed.url)
            headers = LEGACY | {"mcp-session-id": session, "accept": "text/event-stream"}
            async with client.stream("GET", f"{other.url}/mcp", headers=headers) as stream:
                assert (await listed(client, other.url, session)).status_code == 200
                doomed.process.kill()
                await asyncio.to_thread(doomed.process.wait, WAIT_S)
                with pytest.raises(httpx2.RemoteProtocolError):
                    await stream.aread()
            gone = await listed(client, other.url, session)
            assert (gone.status_code, gone.json()["error"]["message"]) == (404, "Session not found")
            again = await begin(client, other.url)
            assert (await listed(client, other.url, again)).status_code == 200
            for unknown in ("0badc0de-1", "no-such", "-", f"{session.partition('-')[0]}-"):
                assert (await listed(client, other.url, unknown)).status_code == 404


async def test_replicas_hand_on_who_is_asking_and_believe_nobody_else(skills: Path) -> None:
    data = skills.parent / "guarded"
    with ExitStack() as stack:
        one, other = (stack.enter_context(running(skills, data, admin_key=KEY)) for _ in range(2))
        async with httpx2.AsyncClient(timeout=WAIT_S) as client:
            client.headers["authorization"] = f"Bearer {KEY}"
            session = await begin(client, one.url)
            assert "main_calculator_evaluate" in (await listed(client, other.url, session)).text
            for false in ("Replica e30.00", "Replica", "replica x.y", "Bearer wrong"):
                refused = await listed(client, other.url, session, authorization=false)
                assert refused.status_code == 401
            foreign = await listed(client, other.url, session, origin="https://evil.example")
            assert foreign.status_code == 403


async def test_a_stranger_at_a_replicas_address_learns_no_key_and_is_not_believed(skills: Path) -> None:
    """Addresses are used again: what answers may be another program by now."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-skillwire-proof: 00\r\n\r\n{}")
        await writer.drain()
        writer.close()

    data = skills.parent / "guarded-alone"
    stranger = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{stranger.sockets[0].getsockname()[1]}"
    async with stranger:
        with running(skills, data, admin_key=KEY) as service:
            with sqlite3.connect(data / "skillwire.db") as database:
                database.execute("INSERT INTO leases VALUES ('replica:0123abcd', ?, 1e12)", (address,))
            database.close()
            async with httpx2.AsyncClient(timeout=WAIT_S, headers={"authorization": f"Bearer {KEY}"}) as client:
                refused = await listed(client, service.url, "0123abcd-1")
            assert (refused.status_code, refused.json()["error"]["message"]) == (404, "Session not found")
    assert len(heard) == 1
    assert KEY.encode() not in heard[0]
