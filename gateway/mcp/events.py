"""What was sent on the streams of a legacy session, so that a client that hung up can come back for it."""

import collections
import itertools

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage

EVENTS_MAX = 256


class RecentEvents(EventStore):
    """The newest `EVENTS_MAX` messages of one session, in memory: it lives in one process and ends
    with it. Never shared: streams are named by the client's own request ids, which other sessions
    use as well. A client whose place has gone gets nothing and starts anew."""

    def __init__(self, events_max: int = EVENTS_MAX) -> None:
        self._events: collections.deque[tuple[int, StreamId, JSONRPCMessage | None]] = collections.deque(
            maxlen=events_max
        )
        self._numbers = itertools.count(1)

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        number = next(self._numbers)
        self._events.append((number, stream_id, message))
        return str(number)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        held = list(self._events)
        last = int(last_event_id) if last_event_id.isdecimal() else 0
        stream = next((stream for number, stream, _ in held if number == last), None)
        if stream is None:
            return None
        for number, its_stream, message in held:
            if number > last and its_stream == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
