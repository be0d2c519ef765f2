"""The WebSocket driver: JSON-RPC commands and the event stream over one socket."""

import asyncio

import msgspec
import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected, WebSocketState

from notifier.asgi import AsgiWire
from notifier.close_codes import FULL, TOO_LARGE, CloseCode
from notifier.events import Viewer
from notifier.notifier import UnifiedNotifier
from notifier.protocol import INVALID_PARAMS, encode_notification, encode_request
from notifier.raw import RAW, RawWebSocketProtocol
from notifier.rpc import Registered, RpcCall, RpcError, RpcRegistry
from notifier.rpc_connection import RpcConnection
from notifier.stream import Stream
from notifier.subscription import Subscription
from notifier.topics import UnknownTopic, checked_topics
from notifier.wire import CLOSE_S, websocket_texts

log = structlog.get_logger(__name__)

MESSAGE_BYTES_MAX = 1024 * 1024
# Together with the close this stays below the five seconds that `UnifiedNotifier.close` waits.
_FINISH_S = 3.0
# JSON-RPC has every client answer a call, be it with an error; nobody waits for what this one says.
_PING = encode_request("s-ping", "ping", b"{}")


class SubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str]
    since: str | None = None


class UnsubscribeParams(msgspec.Struct, frozen=True):
    topics: list[str]


async def serve_websocket(
    websocket: WebSocket,
    notifier: UnifiedNotifier,
    rpc: RpcRegistry,
    viewer: Viewer,
    principal: object,
    *,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> None:
    """Accepts the socket unless that was done, and serves it until either side ends it; with a server that lets
    its transport be written to, it returns as soon as the connection has become the notifier's own.

    A message above `message_bytes_max` ends the connection.
    """
    if notifier.is_full:
        await _turn_away(websocket, notifier.retry_ms())
        return
    if websocket.application_state == WebSocketState.CONNECTING:
        await websocket.accept()
    subscription = notifier.open(viewer, "websocket")
    stream = _RpcStream(notifier, subscription, rpc, principal, message_bytes_max)
    raw = websocket.scope.get("extensions", {}).get(RAW)
    if isinstance(raw, RawWebSocketProtocol):
        raw.take_over(stream)
    else:
        await _serve_over_asgi(websocket, stream)


class _RpcStream(Stream):
    __slots__ = ("_calls", "_message_bytes_max")

    def __init__(
        self,
        notifier: UnifiedNotifier,
        subscription: Subscription,
        rpc: RpcRegistry,
        principal: object,
        message_bytes_max: int,
    ) -> None:
        super().__init__(notifier, subscription)
        self._message_bytes_max = message_bytes_max
        self._calls = RpcConnection(rpc, principal, self._send, self.writable, self._local_commands())

    def receive(self, message: bytes) -> None:
        if self._subscription.close_code is not None and not self._calls.is_busy:
            return
        if len(message) > self._message_bytes_max:
            self._subscription.end(TOO_LARGE)
        else:
            self._calls.receive(message)

    def lost(self) -> None:
        if not self._is_over and self._calls.is_waiting:
            self._owner.tasks.start(self._calls.close(), "end calls")
        super().lost()

    def ended(self, close: CloseCode) -> None:
        """Calls that run when the stream is ended get their answers first, for a moment."""
        if self._calls.is_busy:
            self._owner.tasks.start(self._finish_calls(close), "finish calls")
        else:
            self._finish(close)

    async def _finish_calls(self, close: CloseCode) -> None:
        try:
            async with asyncio.timeout(_FINISH_S):
                await self._calls.finish()
        except TimeoutError:
            log.info("calls cut off at the end of a stream")
        self._finish(close)

    def _local_commands(self) -> dict[str, Registered]:
        return {
            "subscribe": Registered(self._subscribe, 15.0),
            "unsubscribe": Registered(self._unsubscribe),
            "ping": Registered(self._ping),
        }

    def _send(self, message: bytes) -> None:
        if not self._is_over:
            self._wire.post(message)

    def _heartbeat(self) -> bytes:
        return encode_notification("heartbeat", self._position())

    def _goodbye(self, close: CloseCode) -> bytes:
        """The close frame says it again, but not when to come back."""
        return encode_notification("bye", msgspec.json.encode({
            "code": close.code, "reason": close.reason, "retryMs": self._owner.retry_ms(),
        }))  # fmt: skip

    def _position(self) -> bytes:
        return msgspec.json.encode({"position": self._subscription.position})

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

    def _unsubscribe(self, call: RpcCall) -> bytes:
        self._subscription.leave(_topics(call.decoded(UnsubscribeParams).topics))
        return msgspec.json.encode({"topics": sorted(self._subscription.topics)})

    def _ping(self, _: RpcCall) -> bytes:
        return self._position()


def _topics(names: list[str], joined: frozenset[str] = frozenset()) -> frozenset[str]:
    try:
        checked_topics(joined.union(names))
        return checked_topics(names)
    except UnknownTopic as exc:
        raise RpcError(INVALID_PARAMS, str(exc), {"code": "unknown_topic"}) from exc


async def _serve_over_asgi(websocket: WebSocket, stream: _RpcStream) -> None:
    wire = AsgiWire(stream, websocket.send_text, websocket_texts, bytes.decode, _PING)

    async def read() -> None:
        while True:
            await wire.readable()
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            wire.heard()
            text = message.get("text")
            stream.receive(message["bytes"] if text is None else text.encode())

    stream.begin(wire)
    for end in await wire.serve(read()):
        if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect | WebSocketDisconnected | OSError):
            log.error("stream failed", transport="websocket", exc_info=end)
    if wire.close is not None:
        await _close_socket(websocket, wire.close)


async def _turn_away(websocket: WebSocket, retry_ms: int) -> None:
    if websocket.application_state == WebSocketState.CONNECTING:
        headers = {"Retry-After": str(1 + retry_ms // 1000)}
        await websocket.send_denial_response(PlainTextResponse(FULL.reason, 503, headers))
    else:
        await _close_socket(websocket, FULL)


async def _close_socket(websocket: WebSocket, close: CloseCode) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await websocket.close(close.code, close.reason)
    except (TimeoutError, WebSocketDisconnect, WebSocketDisconnected, OSError):
        log.info("socket closed without a handshake", code=close.code)
