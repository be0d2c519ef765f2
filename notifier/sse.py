"""The Server-Sent Events driver: the event stream over HTTP, for browsers, curl and proxies that refuse WebSocket.

Events have no `event:` name and the log's id, so a plain `EventSource` resumes by itself; `hello`, `reset` and
`bye` are named. A heartbeat carries an `id:` alone: by the HTML specification that moves the browser's
Last-Event-ID without an event, so that an idle subscriber's position does not grow too old to resume from.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec
import structlog
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from notifier import metrics
from notifier.close_codes import UNAVAILABLE, CloseCode
from notifier.events import Viewer, sse_frame
from notifier.notifier import UnifiedNotifier
from notifier.subscription import Subscription, SubscriptionEnded
from notifier.topics import LOG_TOPICS, checked_topics

log = structlog.get_logger(__name__)

HEARTBEAT_S = 15.0
STALL_S = 30.0


def sse_response(
    notifier: UnifiedNotifier,
    viewer: Viewer,
    topics: Iterable[str],
    since: str | None,
    *,
    heartbeat_s: float = HEARTBEAT_S,
    stall_s: float = STALL_S,
) -> Response:
    """A stream of `topics`, resumed after `since` (the Last-Event-ID); 503 when there are too many streams.

    Raises `UnknownTopic`. The stream is registered when the server starts to send it, so that a HEAD request or a
    client that is gone by then leaves nothing behind.
    """
    wanted = checked_topics(topics)
    if notifier.is_full:
        retry_after = str(1 + notifier.retry_ms() // 1000)
        return PlainTextResponse("too many subscribers", 503, {"Retry-After": retry_after})
    return _EventStream(
        _stream(notifier, viewer, wanted, since, heartbeat_s),
        headers={"Cache-Control": "no-store"},
        ping=0,  # a heartbeat of our own keeps its place among the events
        send_timeout=stall_s,
    )


class _EventStream(EventSourceResponse):
    """Ends when its generator does, and not before.

    sse-starlette watches uvicorn's exit flag and then cancels the generator: the client would see a cut chunk
    instead of `bye`. Its watcher is also a task that polls for ever and that nobody owns. The notifier ends
    streams itself (`UnifiedNotifier.close`), so the watcher is left out; `tests/integration/test_notifier_sse.py`
    fails if a new release starts it some other way.
    """

    async def _listen_for_exit_signal_with_grace(self) -> None:
        await asyncio.Event().wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            metrics.slow_subscribers.inc()


async def _stream(
    notifier: UnifiedNotifier, viewer: Viewer, topics: frozenset[str], since: str | None, heartbeat_s: float
) -> AsyncIterator[bytes]:
    subscription = notifier.subscribe(viewer, topics, since, "sse")
    try:
        yield await _hello(subscription, notifier.retry_ms(), is_fresh=since is None)
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    frames = await subscription.next_batch()
            except TimeoutError:
                yield _heartbeat(subscription)
            else:
                yield b"".join(frame.sse for frame in frames)
    except SubscriptionEnded as exc:
        yield _bye(exc.close, notifier.retry_ms())
    except Exception:  # the boundary of one subscriber
        log.exception("stream failed", transport="sse")
        metrics.stream_failures.labels("sse").inc()
        yield _bye(UNAVAILABLE, notifier.retry_ms())
    finally:
        subscription.close()


async def _hello(subscription: Subscription, retry_ms: int, *, is_fresh: bool) -> bytes:
    recovery = await subscription.start()
    body = msgspec.json.encode({"position": recovery.position, "recovered": recovery.recovered})
    # While a replay is still to come the client's own id is the one to resume from.
    has_id = is_fresh and subscription.topics & LOG_TOPICS
    return sse_frame(body, event="hello", event_id=recovery.position if has_id else "", retry_ms=retry_ms)


def _heartbeat(subscription: Subscription) -> bytes:
    if subscription.topics & LOG_TOPICS:
        return f": heartbeat\nid: {subscription.position}\n\n".encode()
    return b": heartbeat\n\n"


def _bye(close: CloseCode, retry_ms: int) -> bytes:
    return sse_frame(msgspec.json.encode({"reason": close.reason}), event="bye", retry_ms=retry_ms)
