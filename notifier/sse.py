"""The Server-Sent Events driver: the event stream over HTTP, for browsers, curl and proxies that refuse WebSocket.

Events have no `event:` name and the log's id, so a plain `EventSource` resumes by itself; `hello`, `reset` and
`bye` are named. A heartbeat carries an `id:` alone: by the HTML specification that moves the browser's
Last-Event-ID without an event, so that an idle subscriber's position does not grow too old to resume from.
"""

from collections.abc import Iterable

import msgspec
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from notifier.asgi import AsgiWire
from notifier.close_codes import CloseCode
from notifier.events import Viewer, sse_frame
from notifier.notifier import UnifiedNotifier
from notifier.raw import RAW, RawHttpProtocol
from notifier.stream import Stream
from notifier.subscription import Subscription
from notifier.topics import LOG_TOPICS, checked_topics
from notifier.wire import sse_bytes

# A stream ends with its connection. nginx holds events back without X-Accel-Buffering, other proxies compress or cut.
_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
)


def sse_response(notifier: UnifiedNotifier, viewer: Viewer, topics: Iterable[str], since: str | None) -> Response:
    """A stream of `topics`, resumed after `since` (the Last-Event-ID); 503 when there are too many streams.

    Raises `UnknownTopic`. The stream is registered when the server starts to send it, so that a HEAD request or a
    client that is gone by then leaves nothing behind.
    """
    wanted = checked_topics(topics)
    if notifier.is_full:
        retry_after = str(1 + notifier.retry_ms() // 1000)
        return PlainTextResponse("too many subscribers", 503, {"Retry-After": retry_after})
    return _EventStream(notifier, viewer, wanted, since)


class _EventStream(Response):
    """Over a server that lets its transport be written to, the call returns once the connection has become the
    notifier's own; else it lasts as long as the stream."""

    def __init__(self, notifier: UnifiedNotifier, viewer: Viewer, topics: frozenset[str], since: str | None) -> None:
        super().__init__()
        self.raw_headers = list(_HEADERS)
        self._notifier = notifier
        self._viewer = viewer
        self._topics = topics
        self._since = since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        subscription = self._notifier.subscribe(self._viewer, self._topics, self._since, "sse")
        stream = _SseStream(self._notifier, subscription, is_fresh=self._since is None)
        raw = scope.get("extensions", {}).get(RAW)
        if not (isinstance(raw, RawHttpProtocol) and raw.take_over(scope, stream)):
            await _serve_over_asgi(stream, receive, send)


class _SseStream(Stream):
    __slots__ = ("_is_fresh",)

    def __init__(self, notifier: UnifiedNotifier, subscription: Subscription, *, is_fresh: bool) -> None:
        super().__init__(notifier, subscription)
        self._is_fresh = is_fresh

    async def _open(self) -> None:
        recovery = await self._subscription.start()
        body = msgspec.json.encode({"position": recovery.position, "recovered": recovery.recovered})
        # While a replay is still to come the client's own id is the one to resume from.
        has_id = self._is_fresh and self._subscription.topics & LOG_TOPICS
        event_id = recovery.position if has_id else ""
        self._wire.post(sse_frame(body, event="hello", event_id=event_id, retry_ms=self._owner.retry_ms()))

    def _heartbeat(self) -> bytes:
        if self._subscription.topics & LOG_TOPICS:
            return f": heartbeat\nid: {self._subscription.position}\n\n".encode()
        return b": heartbeat\n\n"

    def _goodbye(self, close: CloseCode) -> bytes:
        reason = msgspec.json.encode({"reason": close.reason})
        return sse_frame(reason, event="bye", retry_ms=self._owner.retry_ms())


async def _serve_over_asgi(stream: _SseStream, receive: Receive, send: Send) -> None:
    async def send_body(body: bytes) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    wire = AsgiWire(stream, send_body, sse_bytes, bytes)
    stream.begin(wire)
    _, sending = await wire.serve(watch())
    if wire.close is not None and sending is None:
        await send({"type": "http.response.body", "body": b""})
