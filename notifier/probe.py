"""Tries the classes of `raw.py` with the uvicorn that is installed, at start and without a socket."""

import asyncio
from typing import Any, cast

import structlog
import uvicorn
from uvicorn.server import ServerState

from notifier.close_codes import CloseCode
from notifier.metrics import raw_push
from notifier.raw import RAW, RawHttpProtocol, RawWebSocketProtocol, Whole

_PROBE_S = 2.0

log = structlog.get_logger(__name__)


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
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def probe() -> bool:
    """Whether both classes work with the uvicorn that is installed; says so in the metric."""
    works = False
    try:
        async with asyncio.timeout(_PROBE_S):
            works = await _websocket_works() and await _http_works() and await _answers_at_once()
    except Exception:  # whatever a uvicorn does that we have not seen: ASGI serves as well
        log.exception("streams go through ASGI: this uvicorn cannot hand connections over")
    raw_push.set(works)
    return works


async def _probed(
    app: Any, head: bytes, http: type[RawHttpProtocol] = RawHttpProtocol
) -> tuple[_Recorder, ServerState]:
    config = uvicorn.Config(app, ws=RawWebSocketProtocol, http=http, lifespan="off", log_config=None, access_log=False)
    config.ws_per_message_deflate = False
    state, transport = ServerState(), _Recorder()
    config.load()
    protocol = http(config=config, server_state=state, app_state={})
    transport.protocol = protocol
    protocol.connection_made(transport)
    protocol.data_received(_REQUEST + head)
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

    transport, state = await _probed(app, b"\r\n")
    protocol = cast(RawHttpProtocol, transport.protocol)
    protocol.data_received(b"ignored")
    peer.wire.post(b"ok")
    is_sent = transport.written.endswith(b"2\r\nok\r\n") and not transport.was_closed
    peer.wire.finish(CloseCode(3001, "x"))
    protocol.connection_lost(None)
    return is_sent and transport.written.endswith(b"0\r\n\r\n") and peer.is_lost and not state.connections


async def _answers_at_once() -> bool:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    def at_once(_: Any, body: bytes) -> Whole:
        return Whole(200, b"content-length: 2\r\n", body)

    answering = RawHttpProtocol.answering(at_once)
    transport, state = await _probed(app, b"Content-Length: 2\r\n\r\nok", answering)
    protocol = cast(RawHttpProtocol, transport.protocol)
    is_first = transport.written.endswith(b"\r\nok") and state.total_requests == 1
    protocol.data_received(_REQUEST + b"Connection: close\r\n\r\n")  # the plain way still serves the connection
    while state.tasks:
        await asyncio.wait(state.tasks)
    protocol.connection_lost(None)
    return is_first and b"late" in transport.written and transport.was_closed
