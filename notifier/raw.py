"""Connections that uvicorn hands over once they are open, so that fan-out writes to their transports itself.

ASGI costs a task, a stack of coroutines and an awaited call per message and connection. After `take_over` the ASGI
task of a connection returns, and what is left of it is the protocol object and its transport: an event is one
`transport.write`. uvicorn takes protocol classes by a public setting (`Config(ws=..., http=...)`), but what they
override is private. All of that stands in this file. `probe` tries it at start, without a socket; where it fails, the
servers' own classes are used and streams go through ASGI (`asgi.py`), slower and with the same meaning.

uvicorn's permessage-deflate must be off: frames are made once for all.
"""

import asyncio
from typing import Any, cast

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from notifier.close_codes import CloseCode
from notifier.events import http_chunk, websocket_frame
from notifier.metrics import raw_push
from notifier.wire import CLOSE_S, Peer, sse_chunk, websocket_bytes

RAW = "skillwire.raw"
_PROBE_S = 2.0

log = structlog.get_logger(__name__)


class _NoTimer:
    """Stands where uvicorn looks whether a close is under way, so that it does not close what was handed over."""

    def cancel(self) -> None:
        """There is nothing to cancel."""


_HANDED_OVER = cast(asyncio.TimerHandle, _NoTimer())


class _Conversation(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        """A client may close in the middle of a message of several frames (Autobahn 7.1.5): nothing is wrong then."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class RawWebSocketProtocol(WebSocketsSansIOProtocol):
    """A `Wire` once it was taken over."""

    encode = staticmethod(websocket_bytes)
    _peer: Peer | None = None
    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = _Conversation(max_size=self.config.ws_max_size, logger=self.logger)

    def take_over(self, peer: Any) -> None:
        """`peer` is a `Stream`: it begins, unless the client has gone already, and gets every message from now on."""
        self.stop_keepalive()
        self._peer = peer
        self.close_timer = _HANDED_OVER
        peer.begin(self)
        while not self.queue.empty():  # what came between the handshake and now
            message = cast(dict[str, Any], self.queue.get_nowait())
            if message["type"] == "websocket.disconnect":
                self._let_go()
                return
            text = message.get("text")
            peer.receive(message["bytes"] if text is None else text.encode())
        self.go_on_reading()
        del self.scope, self.request, self.response  # some kilobytes that nothing reads any more

    def write(self, payload: bytes) -> None:
        self.transport.write(payload)

    def post(self, message: bytes) -> None:
        self.transport.write(websocket_frame(message))

    def finish(self, close: CloseCode) -> None:
        self.conn.send_close(close.code, close.reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._abort_timer = self.loop.call_later(CLOSE_S, self.transport.abort)
        self.go_on_reading()  # for the client's answer
        self._let_go()

    def hold_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, Any], self.scope["extensions"])[RAW] = self

    def send_receive_event_to_app(self) -> None:
        if self.close_timer is None:
            super().send_receive_event_to_app()
            return
        message = bytes(self.frames[0]) if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self._peer is None:
            return
        if self.curr_msg_data_type == "text":
            try:
                message.decode()
            except UnicodeDecodeError:
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        self._peer.receive(message)

    def handle_close(self, event: Frame) -> None:
        self._let_go()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        self._let_go()
        super().handle_parser_exception()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._peer is not None:
            self._peer.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._peer is not None:
            self._peer.resumed()

    def shutdown(self) -> None:
        """The server ends; streams are ended by their notifier, with a close that says when to come back."""
        if self._peer is None:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost()


class RawHttpProtocol(HttpToolsProtocol):
    """A `Wire` for one chunked response that never ends, once it was taken over."""

    encode = staticmethod(sse_chunk)
    _peer: Peer | None = None
    _is_taken = False
    _abort_timer: asyncio.TimerHandle | None = None

    def take_over(self, scope: Any, peer: Any) -> bool:
        """`peer` is a `Stream`. False, and nothing has happened, when the response is not the newest of this
        connection, or is not chunked."""
        cycle = self.cycle
        if cycle.scope is not scope and cycle.scope["headers"] is not scope["headers"]:
            return False
        if self.pipeline or not cycle.chunked_encoding:
            return False
        cycle.response_complete = True  # or uvicorn closes the connection when its task returns
        self._is_taken = True
        self._peer = peer
        if cycle.disconnected or self.transport.is_closing():
            peer.begin(self)
            self._let_go()
            return True
        peer.begin(self)
        # Some kilobytes that nothing reads any more.
        self.parser = cast(Any, None)
        self.headers = []
        self.scope = cycle.scope = cast(Any, {})
        return True

    def write(self, payload: bytes) -> None:
        self.transport.write(payload)

    def post(self, message: bytes) -> None:
        self.transport.write(http_chunk(message))

    def finish(self, close: CloseCode) -> None:  # noqa: ARG002  # `bye` has said why
        self.transport.write(b"0\r\n\r\n")
        self.transport.close()
        self._abort_timer = self.loop.call_later(CLOSE_S, self.transport.abort)
        self._let_go()

    def hold_reading(self) -> None:
        """A client of an event stream has nothing to say."""

    def go_on_reading(self) -> None:
        """See `hold_reading`."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {RAW: self}

    def data_received(self, data: bytes) -> None:
        if not self._is_taken:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._peer is not None:
            self._peer.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._peer is not None:
            self._peer.resumed()

    def shutdown(self) -> None:
        """The server ends; streams are ended by their notifier, with a close that says when to come back."""
        if self._peer is None:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost()


class _Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.was_closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.was_closed

    def close(self) -> None:
        self.was_closed = True

    def abort(self) -> None:
        self.was_closed = True

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class _Echo:
    """A stream for the probe."""

    wire: Any = None
    is_lost = False

    def begin(self, wire: Any) -> None:
        self.wire = wire

    def receive(self, message: bytes) -> None:
        self.wire.post(message)

    def paused(self) -> None: ...

    def resumed(self) -> None: ...

    def lost(self) -> None:
        self.is_lost = True


_REQUEST = b"GET / HTTP/1.1\r\nHost: probe\r\n"
_UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def probe() -> bool:
    """Whether both classes work with the uvicorn that is installed; says so in the metric."""
    works = False
    try:
        async with asyncio.timeout(_PROBE_S):
            works = await _websocket_works() and await _http_works()
    except Exception:  # whatever a uvicorn does that we have not seen: ASGI serves as well
        log.exception("streams go through ASGI: this uvicorn cannot hand connections over")
    raw_push.set(works)
    return works


async def _probed(app: Any, head: bytes) -> tuple[_Recorder, ServerState]:
    config = uvicorn.Config(
        app, ws=RawWebSocketProtocol, http=RawHttpProtocol, lifespan="off", log_config=None, access_log=False
    )
    config.ws_per_message_deflate = False
    state, transport = ServerState(), _Recorder()
    config.load()
    protocol = RawHttpProtocol(config=config, server_state=state, app_state={})
    transport.protocol = protocol
    protocol.connection_made(transport)
    protocol.data_received(_REQUEST + head + b"\r\n")
    while state.tasks:
        await asyncio.wait(state.tasks)
    return transport, state


async def _websocket_works() -> bool:
    peer = _Echo()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][RAW].take_over(peer)

    transport, state = await _probed(app, _UPGRADE)
    protocol = cast(RawWebSocketProtocol, transport.protocol)
    protocol.data_received(b"\x81\x82\0\0\0\0ok")  # masked with zeros
    is_echoed = transport.written.endswith(b"\x81\x02ok") and not transport.was_closed
    peer.wire.finish(CloseCode(3001, "x"))
    protocol.connection_lost(None)
    return is_echoed and transport.written.endswith(b"\x88\x03\x0b\xb9x") and peer.is_lost and not state.connections


async def _http_works() -> bool:
    peer = _Echo()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert scope["extensions"][RAW].take_over(scope, peer)

    transport, state = await _probed(app, b"")
    protocol = cast(RawHttpProtocol, transport.protocol)
    protocol.data_received(b"ignored")
    peer.wire.post(b"ok")
    is_sent = transport.written.endswith(b"2\r\nok\r\n") and not transport.was_closed
    peer.wire.finish(CloseCode(3001, "x"))
    protocol.connection_lost(None)
    return is_sent and transport.written.endswith(b"0\r\n\r\n") and peer.is_lost and not state.connections
