"""`subscriptions/listen` where the SDK writes the answer: over stdio, and for requests that the edge does not read.

Its streams are those of `streams.py`, whose frames are taken apart here: the SDK sends messages.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, cast

import mcp_types as types
import msgspec
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from starlette.types import Message

from gateway.mcp.sdk.context import RequestContext, answering, principal_of
from gateway.mcp.sdk.tasks import check_listens
from gateway.mcp.streams import Filter, ListenStreams
from gateway.mcp.tasks import admitted
from services.runs.runs import Runs

# A client that does not read has its frames kept in its stream, each once.
FRAMES_MAX = 64
_KNOWN = {field.encode_name for field in msgspec.structs.fields(Filter)}
_DATA = b"data: "
_encode = msgspec.json.Encoder().encode


async def listen(
    streams: ListenStreams, runs: Runs, context: RequestContext, params: types.SubscriptionsListenRequestParams
) -> types.SubscriptionsListenResult:
    """A handler: returns when the stream is ended by this side."""
    check_listens(context)
    principal = principal_of(context)
    with answering():
        wanted, task_states = await admitted(streams, runs, _filter(params.notifications), principal)
    told = _Told()
    id_ = _encode(context.request_id)
    serving = streams.serve(id_, wanted, principal, told.receive, told.send, task_states, told.end)
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(serving)
        async for frames in told:
            await _pass_on(context, frames)
        stream.cancel()
    return types.SubscriptionsListenResult(_meta={SUBSCRIPTION_ID_META_KEY: context.request_id})


class _Told:
    """Frames on their way to the client, at most `FRAMES_MAX`; iterating ends when the stream has."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            return
        if len(self._frames) >= FRAMES_MAX:
            await self._never()
        self._frames.append(message["body"])
        self._news.set()

    async def receive(self) -> Message:
        await self._never()  # a client that leaves has its request cancelled
        return {"type": "http.disconnect"}

    def end(self) -> None:
        self._is_over = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._is_over:
            await self._news.wait()
            self._news.clear()
            while self._frames:
                yield self._frames.popleft()

    async def _never(self) -> None:
        await asyncio.Event().wait()


async def _pass_on(context: RequestContext, frames: bytes) -> None:
    for line in frames.splitlines():
        if not line.startswith(_DATA):
            continue
        message = msgspec.json.decode(line[len(_DATA) :])
        if "method" in message:  # the last has a result, which the SDK writes
            # Not all of these have a type in the SDK, which sends what is dumped.
            notice = types.Notification[dict[str, Any], str](method=message["method"], params=message["params"])
            await context.session.send_notification(cast(types.ServerNotification, notice), context.request_id)


def _filter(asked: types.SubscriptionFilter) -> Filter:
    """Without what we do not know, which the acknowledgement leaves out."""
    given = asked.model_dump(by_alias=True, exclude_none=True)
    try:
        wanted = msgspec.convert({name: value for name, value in given.items() if name in _KNOWN}, Filter)
        _encode(wanted)
    except msgspec.ValidationError as error:
        raise MCPError(types.INVALID_PARAMS, f"notifications: {error}") from error
    except UnicodeEncodeError as error:
        what = "notifications: holds half of a surrogate pair, which is no text"
        raise MCPError(types.INVALID_PARAMS, what) from error
    return wanted
