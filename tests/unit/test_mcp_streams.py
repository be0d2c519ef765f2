"""Listen streams without a socket: who is told what, who is refused, and what a client that does not read costs."""

import asyncio
import contextlib

import pytest

from gateway.mcp import uris
from gateway.mcp.notices import EVERYONE, Notices, Reach
from gateway.mcp.streams import SLOW_S, URIS_MAX, Filter, ListenStreams
from services.failures import Exhausted
from tests.support.listening import Client, listening, principal

pytestmark = pytest.mark.anyio
URI = "skill://main/one/SKILL.md"
ROOT = uris.watched(URI)
TOOLS = Filter(tools_list_changed=True)


async def test_a_stream_is_told_what_it_asked_for_with_its_own_id() -> None:
    streams = ListenStreams()
    wanted = Filter(resources_list_changed=True, resource_subscriptions=[URI])
    async with listening(streams, wanted) as client:
        streams.tell(Notices(tools={EVERYONE}, resources={EVERYONE}, updated={ROOT: EVERYONE, "skill://x": EVERYONE}))
        streams.close()
    assert client.told == ["subscriptions/acknowledged", "resources/list_changed", "resources/updated", "ended"]
    acknowledged, listed, updated, ended = client.messages
    assert acknowledged["params"]["notifications"] == {"resourcesListChanged": True, "resourceSubscriptions": [URI]}
    meta = {"io.modelcontextprotocol/subscriptionId": 7}
    assert [each["params"]["_meta"] for each in (acknowledged, listed, updated)] == [meta] * 3
    assert updated["params"]["uri"] == URI
    assert ended == {"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete", "_meta": meta}}


async def test_nobody_is_told_of_what_it_may_not_see() -> None:
    streams = ListenStreams()
    wanted = Filter(tools_list_changed=True, resource_subscriptions=[URI])
    stranger, owner = principal("b", frozenset({"other"})), principal("a", frozenset({"main"}))
    async with listening(streams, wanted, stranger) as of_stranger, listening(streams, wanted, owner) as of_owner:
        private = Reach("main", "private")
        streams.tell(Notices(tools={private}, updated={ROOT: private}))
    assert of_stranger.told == ["subscriptions/acknowledged"]
    assert of_owner.told[1:] == ["tools/list_changed", "resources/updated"]


async def test_what_changes_before_the_acknowledgement_is_told_after_it() -> None:
    streams, client = ListenStreams(), Client()
    client.reads.clear()
    async with listening(streams, TOOLS, client=client):
        streams.tell(Notices(tools={EVERYONE}))
        assert client.told == []
        client.reads.set()
        for _ in range(5):
            await asyncio.sleep(0)
    assert client.told == ["subscriptions/acknowledged", "tools/list_changed"]


async def test_a_client_that_does_not_read_holds_nobody_up_and_is_told_each_thing_once() -> None:
    streams = ListenStreams()
    async with listening(streams, TOOLS) as slow, listening(streams, TOOLS) as quick:
        slow.reads.clear()
        for _ in range(3):
            streams.tell(Notices(tools={EVERYONE}))
        assert quick.told[1:] == ["tools/list_changed"] * 3
        slow.reads.set()
        streams.keep_alive()
        assert slow.told[1:] == ["tools/list_changed"]


async def test_a_client_that_does_not_read_for_long_is_given_up() -> None:
    now_s = 1.0
    streams = ListenStreams(clock=lambda: now_s)
    async with listening(streams, TOOLS) as client:
        client.reads.clear()
        streams.tell(Notices(tools={EVERYONE}))
        now_s += SLOW_S
        streams.keep_alive()
        assert len(streams) == 1
        now_s += 1
        streams.keep_alive()
        streams.tell(Notices(tools={EVERYONE}))
        client.reads.set()
        streams.keep_alive()
        assert len(streams) == 0
        assert client.told[-1] == "ended", "so that it listens anew"


async def test_a_client_that_reads_again_before_it_is_looked_at_keeps_its_stream() -> None:
    now_s = 1.0
    streams = ListenStreams(clock=lambda: now_s)
    async with listening(streams, TOOLS) as client:
        client.reads.clear()
        streams.tell(Notices(tools={EVERYONE}))
        client.reads.set()
        now_s += SLOW_S + 1
        streams.keep_alive()
        assert len(streams) == 1
        assert client.told[-1] == "tools/list_changed"


async def test_one_caller_cannot_take_all_streams_and_a_stream_that_ends_makes_room() -> None:
    streams = ListenStreams(streams_max=3, of_one_max=2)
    one, other = principal("one"), principal("other")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(listening(streams, TOOLS, one))
        with pytest.raises(Exhausted):
            streams.admit(TOOLS, one)
        await stack.enter_async_context(listening(streams, TOOLS, other))
        with pytest.raises(Exhausted):
            streams.admit(TOOLS, other)
    assert len(streams) == 0
    streams.admit(TOOLS, one)
    with pytest.raises(Exhausted):
        streams.admit(Filter(resource_subscriptions=[f"skill://{at}" for at in range(URIS_MAX + 1)]), one)
