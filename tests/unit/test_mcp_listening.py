"""Listen streams whose messages the SDK sends: a client that does not read is given up, and told so."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import mcp_types as types
import pytest

from gateway.mcp.notices import EVERYONE, Notices
from gateway.mcp.sdk.listening import FRAMES_MAX, listen
from gateway.mcp.streams import SLOW_S, ListenStreams
from services.runs.runs import Runs

pytestmark = pytest.mark.anyio
META = {"io.modelcontextprotocol/subscriptionId": "mine"}


class Session:
    """Takes notices down while `reads` is set, else they wait."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_asked = asyncio.Event()

    async def send_notification(self, notification: Any, related_request_id: object) -> None:
        assert related_request_id == "mine"
        assert notification.params["_meta"] == META
        self.is_asked.set()
        await self.reads.wait()
        self.told.append(notification.method.removeprefix("notifications/"))

    async def asked(self) -> None:
        self.is_asked.clear()
        async with asyncio.timeout(5):
            await self.is_asked.wait()


def listening(streams: ListenStreams, session: Session) -> "asyncio.Task[types.SubscriptionsListenResult]":
    params = types.SubscriptionsListenRequestParams.model_validate(
        {"notifications": {"toolsListChanged": True, "somethingNew": True}}
    )
    given = params.model_dump(by_alias=True)
    context = SimpleNamespace(request=None, request_id="mine", session=session, params=given, protocol_version="x")
    no_tasks = cast(Runs, None)
    return asyncio.get_running_loop().create_task(listen(streams, no_tasks, cast(Any, context), params))


async def test_a_client_is_told_until_this_side_ends_the_stream() -> None:
    streams, session = ListenStreams(), Session()
    task = listening(streams, session)
    await session.asked()
    streams.tell(Notices(tools={EVERYONE}, prompts={EVERYONE}))
    await session.asked()
    streams.close()
    result = await task
    assert session.told == ["subscriptions/acknowledged", "tools/list_changed"]
    assert (result.meta, len(streams)) == (META, 0)


async def test_a_client_that_did_not_read_is_given_up_and_told_so_when_it_reads_again() -> None:
    now_s = 1.0
    streams, session = ListenStreams(clock=lambda: now_s), Session()
    task = listening(streams, session)
    await session.asked()
    session.reads.clear()
    streams.tell(Notices(tools={EVERYONE}))
    await session.asked()
    for _ in range(FRAMES_MAX + 2):
        streams.tell(Notices(tools={EVERYONE}))
    now_s += SLOW_S + 1
    streams.keep_alive()
    assert len(streams) == 0
    session.reads.set()
    async with asyncio.timeout(5):
        result = await task
    assert session.told[1:] == ["tools/list_changed"] * (FRAMES_MAX + 1)
    assert result.meta == META


async def test_a_request_that_is_cancelled_leaves_no_stream() -> None:
    streams, session = ListenStreams(), Session()
    task = listening(streams, session)
    await session.asked()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(streams) == 0
