"""The WebSocket driver: JSON-RPC commands and the event stream over one socket.

Four tasks per connection, all ended before `serve_websocket` returns: one reads, one writes (the only one that
sends), one moves events and heartbeats from the subscription to the writer, one watches for the end.
"""

import asyncio

import msgspec
import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from notifier import metrics
from notifier.close_codes import FULL, SLOW, TOO_LARGE, UNAVAILABLE, CloseCode
from notifier.events import Viewer
from notifier.notifier import UnifiedNotifier
from notifier.outbox import Outbox
from notifier.protocol import INVALID_PARAMS, encode_notification
from notifier.rpc import Registered, RpcCall, RpcError, RpcRegistry
from notifier.rpc_connection import RpcConnection
from notifier.subscription import Subscription, SubscriptionEnded
from notifier.topics import UnknownTopic, checked_topics

log = structlog.get_logger(__name__)

MESSAGE_BYTES_MAX = 1024 * 1024
HEARTBEAT_S = 20.0
STALL_S = 30.0
# A close frame to a client that does not read would wait as long as its events did.
_CLOSE_TIMEOUT_S = 1.0
# Together with the close frame this stays below the five seconds that `UnifiedNotifier.close` waits.
_FINISH_S = 3.0


class SubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str]
    since: str | None = None


class UnsubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str]


class _Close(Exception):
    """One of the connection's tasks found that it must end; None when the client has gone."""

    def __init__(self, close: CloseCode | None) -> None:
        super().__init__()
        self.close = close


async def serve_websocket(
    websocket: WebSocket,
    notifier: UnifiedNotifier,
    rpc: RpcRegistry,
    viewer: Viewer,
    principal: object,
    *,
    heartbeat_s: float = HEARTBEAT_S,
    stall_s: float = STALL_S,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> None:
    """Accepts the socket unless that was done, and serves it until either side ends it.

    A message above `message_bytes_max` ends the connection; a send that blocks for `stall_s` does, too.
    """
    if notifier.is_full:
        await _turn_away(websocket, notifier.retry_ms())
        return
    if websocket.application_state == WebSocketState.CONNECTING:
        await websocket.accept()
    subscription = notifier.open(viewer, "websocket")
    connection = _Connection(websocket, rpc, principal, subscription)
    try:
        close = await connection.run(heartbeat_s, stall_s, message_bytes_max)
    finally:
        subscription.close()
        await connection.close_calls()
    if close is not None:
        await _close_socket(websocket, close)


class _Connection:
    def __init__(
        self,
        websocket: WebSocket,
        rpc: RpcRegistry,
        principal: object,
        subscription: Subscription,
    ) -> None:
        self._websocket = websocket
        self._subscription = subscription
        self._outbox = Outbox()
        self._calls = RpcConnection(rpc, principal, self._send, self._local_commands())

    async def run(self, heartbeat_s: float, stall_s: float, message_bytes_max: int) -> CloseCode | None:
        """Returns how to close the socket; None when it is closed already."""
        tasks = [
            asyncio.create_task(part)
            for part in (
                self._read(message_bytes_max),
                self._write(stall_s),
                self._deliver(heartbeat_s),
                self._watch_for_end(),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return _close_code(next(failure for task in done if (failure := task.exception()) is not None))

    async def close_calls(self) -> None:
        await self._calls.close()

    async def _read(self, message_bytes_max: int) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise _Close(None)
            text = message.get("text")
            body: bytes = message["bytes"] if text is None else text.encode()
            if len(body) > message_bytes_max:
                raise _Close(TOO_LARGE)
            await self._calls.receive(body)

    async def _write(self, stall_s: float) -> None:
        try:
            await self._outbox.drain(self._websocket.send_text, stall_s)
        except TimeoutError:
            metrics.slow_subscribers.inc()
            raise _Close(SLOW) from None
        except (WebSocketDisconnect, OSError):
            raise _Close(None) from None

    async def _deliver(self, heartbeat_s: float) -> None:
        clock = asyncio.get_running_loop().time
        heartbeat_at = clock() + heartbeat_s
        try:
            while True:
                try:
                    async with asyncio.timeout_at(heartbeat_at):
                        frames = await self._subscription.next_batch()
                except TimeoutError:
                    # From this task, because only between two batches the position is that of the last event sent.
                    await self._send(encode_notification("heartbeat", self._position()))
                    heartbeat_at = clock() + heartbeat_s
                    continue
                sent = 0
                for frame in frames:
                    sent = await self._outbox.put(frame.ws)
                # Only what the socket has taken is delivered; the batch after this one waits in the shared ring.
                await self._outbox.sent(sent)
        except SubscriptionEnded:
            return  # `_watch_for_end` says goodbye

    async def _watch_for_end(self) -> None:
        """Calls that run when the stream is ended get their answers first, for a moment."""
        await self._subscription.ended.wait()
        try:
            async with asyncio.timeout(_FINISH_S):
                await self._calls.finish()
                await self._outbox.flushed()
        except TimeoutError:
            log.info("calls cut off at the end of a stream")
        raise _Close(self._subscription.close_code)

    async def _send(self, message: bytes) -> None:
        await self._outbox.put(message.decode())

    def _position(self) -> bytes:
        return msgspec.json.encode({"position": self._subscription.position})

    def _local_commands(self) -> dict[str, Registered]:
        return {
            "subscribe": Registered(self._subscribe, 15.0),
            "unsubscribe": Registered(self._unsubscribe, 15.0),
            "ping": Registered(self._ping, 15.0),
        }

    async def _subscribe(self, call: RpcCall) -> bytes:
        params = call.decoded(SubscribeParams)
        join = self._subscription.join(_topics(params.topics, self._subscription.topics), params.since)
        try:
            recovery = await self._subscription.recover(join)
        except BaseException:
            self._subscription.withdraw(join)
            raise
        call.after_reply(lambda: self._subscription.acknowledge(join))
        return msgspec.json.encode(recovery._asdict())

    async def _unsubscribe(self, call: RpcCall) -> bytes:
        self._subscription.leave(_topics(call.decoded(UnsubscribeParams).topics))
        return msgspec.json.encode({"topics": sorted(self._subscription.topics)})

    async def _ping(self, _: RpcCall) -> bytes:
        return self._position()


def _topics(names: list[str], joined: frozenset[str] = frozenset()) -> frozenset[str]:
    try:
        checked_topics(joined.union(names))
        return checked_topics(names)
    except UnknownTopic as exc:
        raise RpcError(INVALID_PARAMS, str(exc), {"code": "unknown_topic"}) from exc


def _close_code(failure: BaseException) -> CloseCode | None:
    if isinstance(failure, _Close):
        return failure.close
    # The log could not be read, or a bug of ours: this stream ends, the client resumes elsewhere or later.
    log.error("stream failed", transport="websocket", exc_info=failure)
    metrics.stream_failures.labels("websocket").inc()
    return UNAVAILABLE


async def _turn_away(websocket: WebSocket, retry_ms: int) -> None:
    if websocket.application_state == WebSocketState.CONNECTING:
        headers = {"Retry-After": str(1 + retry_ms // 1000)}
        await websocket.send_denial_response(PlainTextResponse(FULL.reason, 503, headers))
    else:
        await _close_socket(websocket, FULL)


async def _close_socket(websocket: WebSocket, close: CloseCode) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await websocket.close(close.code, close.reason)
    except (TimeoutError, WebSocketDisconnect, OSError):
        log.info("socket closed without a handshake", code=close.code)
