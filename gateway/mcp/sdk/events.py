"""What was sent on the streams of a legacy session, so that a client that hung up can come back for it."""

import collections
import itertools

from mcp.server.streamable_http import GET_STREAM_KEY, EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage, JSONRPCNotification, jsonrpc_message_adapter

EVENTS_MAX = 256
# Of one session, of which there may be thousands; an answer with a file may take 16 MiB and more.
BYTES_MAX = 4 * 1024 * 1024
# Ends the ids of the stream on which a session hears of changes.
_OF_CHANGES = "-get"
_EVERYTHING = tuple(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))


class RecentEvents(EventStore):
    """The newest `EVENTS_MAX` messages of one session, of at most `BYTES_MAX` in all, in memory: it lives in
    one process and ends with it. Never shared: streams are named by the client's own request ids, which other
    sessions use as well. Kept encoded, so that the bound is that of what they take. A client whose place among
    the changes has gone is told that everything may have changed; one that comes back for an answer that has
    gone gets nothing and starts anew."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events: collections.deque[tuple[EventId, StreamId, bytes]] = collections.deque()
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._numbers = itertools.count(1)

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        event_id = f"{next(self._numbers)}{_OF_CHANGES if stream_id == GET_STREAM_KEY else ''}"
        # As the SDK encodes it for the client; nothing stands for the place where a stream begins.
        data = b"" if message is None else message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        self._events.append((event_id, stream_id, data))
        self._bytes += len(data)
        while len(self._events) > self._events_max or self._bytes > self._bytes_max:
            _, _, gone = self._events.popleft()
            self._bytes -= len(gone)
        return event_id

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        held = list(self._events)
        at = next((at for at, (event_id, _, _) in enumerate(held) if event_id == last_event_id), None)
        if at is None:
            return await self._everything_changed(send_callback) if last_event_id.endswith(_OF_CHANGES) else None
        _, stream, _ = held[at]
        for event_id, its_stream, data in held[at + 1 :]:
            if its_stream == stream and data:
                await send_callback(EventMessage(jsonrpc_message_adapter.validate_json(data), event_id))
        return stream

    async def _everything_changed(self, send_callback: EventCallback) -> StreamId:
        for method in _EVERYTHING:
            message = JSONRPCNotification(jsonrpc="2.0", method=method)
            await send_callback(EventMessage(message, await self.store_event(GET_STREAM_KEY, message)))
        return GET_STREAM_KEY
