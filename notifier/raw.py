"""uvicorn's protocols, told more than ASGI can say.

ASGI costs a task, a stack of coroutines and an awaited call per message and connection. Two kinds of work here do
without:

* A stream, once it is open, is taken over. Its ASGI task returns, and what is left of the connection is the protocol
  object and its transport: an event is one `transport.write`.
* A request whose answer is at hand is answered when its last byte has been read: one write, no task. Whatever is not
  so plain -- a body still on its way, pipelined requests, a client that does not read -- goes through ASGI, and so
  does an answer that turns out to be waited for.

uvicorn takes protocol classes by a public setting (`Config(ws=..., http=...)`), but what they override is private. All
of that stands in this file. `probe.py` tries it at start; where it fails, the servers' own classes are used and
everything goes through ASGI (`asgi.py`), slower and with the same meaning.

uvicorn's permessage-deflate must be off: frames are made once for all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, cast

import structlog
from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # in C where it can be
from websockets.server import ServerProtocol

from notifier.close_codes import CloseCode
from notifier.eager import start_eagerly
from notifier.events import http_chunk, websocket_frame
from notifier.frames import PING, TEXT_FINAL, frame_bounds
from notifier.metrics import at_once_failures
from notifier.wire import BATCH_BYTES, BEATS_UNANSWERED_MAX, CLOSE_S, Peer, sse_chunk, websocket_bytes

RAW = "skillwire.raw"
# From here on two writes cost less than a copy.
_COPIED_BYTES_MAX = 64 * 1024

log = structlog.get_logger(__name__)


class Whole(NamedTuple):
    """A whole HTTP answer: `head` is its header lines, each ended, with a Content-Length among them."""

    status: int
    head: bytes
    body: bytes


AtOnce = Callable[[Scope, bytes], Whole | Coroutine[Any, Any, Whole] | None]


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


class _Streaming(asyncio.Protocol):
    """What a protocol of uvicorn tells the stream that took its connection over; it stands in front of that class."""

    _peer: Peer | None = None
    _abort_timer: asyncio.TimerHandle | None = None

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
            cast(Any, super()).shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        super().connection_lost(exc)

    def _let_go(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.lost()


class RawWebSocketProtocol(_Streaming, WebSocketsSansIOProtocol):
    """A `Wire` once it was taken over.

    Text messages of one frame are taken out of what the client sends here; all other frames go to websockets' parser,
    one whole frame at a time, so that it is never in the middle of one.
    """

    encode = staticmethod(websocket_bytes)
    _reads = 0  # before it was taken over
    _is_quick = False
    _partial: bytearray | None = None  # of a frame that will end `_partial_size` bytes after it began
    _partial_size = 0
    _held: list[bytes] | None = None  # what is to be written, while several messages of one read are answered
    _held_bytes = 0
    _beats = 0  # since the client was heard last

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.conn = _Conversation(max_size=self.config.ws_max_size, logger=self.logger)

    def take_over(self, peer: Any) -> None:
        """`peer` is a `Stream`: it begins, unless the client has gone already, and gets every message from now on."""
        self.stop_keepalive()
        self._is_quick = self._reads == 1  # the handshake: the parser is between two frames
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
        if self._held is None:
            self.transport.write(payload)
            return
        self._held.append(payload)
        self._held_bytes += len(payload)
        if self._held_bytes > BATCH_BYTES:
            self._release()
            self._held = []

    def post(self, message: bytes) -> None:
        self.write(websocket_frame(message))

    def _release(self) -> None:
        """Writes what was held back while the messages of one read were answered."""
        held, self._held, self._held_bytes = self._held, None, 0
        if held:
            self.transport.write(b"".join(held))

    def beat(self, message: bytes) -> bool:
        """With a ping behind it, which every client's WebSocket answers by itself. What has come is read between two
        beats, however late they are, so a busy loop ends nobody."""
        self._beats += 1
        if self._beats > BEATS_UNANSWERED_MAX:
            return False
        self.transport.write(websocket_frame(message) + PING)
        return True

    def finish(self, close: CloseCode) -> None:
        self._release()
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

    def data_received(self, data: bytes) -> None:
        self._beats = 0
        if not self._is_quick:
            self._reads += 1
            super().data_received(data)
            return
        if self._partial is not None:
            self._partial += data
            if len(self._partial) < self._partial_size:
                return
            data, self._partial = bytes(self._partial), None
        self._take_frames(data)
        if self._held is not None:
            self._release()

    def _take_frames(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            bounds = frame_bounds(data, at)
            if bounds is not None and (bounds[0] == at or bounds[1] - bounds[0] > self.config.ws_max_size):
                self._is_quick = False  # the parser refuses what follows
                super().data_received(data[at:])
                return
            if bounds is None or bounds[1] > len(data):
                self._partial = bytearray(data[at:])
                self._partial_size = 0 if bounds is None else bounds[1] - at
                return
            first, end = bounds
            if data[at] == TEXT_FINAL and self._peer is not None and self.conn.current_size is None:
                if self._held is None and end < len(data):
                    self._held = []
                self.curr_msg_data_type = "text"
                self._take_text(self._peer, apply_mask(data[first:end], data[first - 4 : first]))
            else:
                self._release()
                super().data_received(data[at:end])
            at = end

    def _take_text(self, peer: Peer, message: bytes) -> None:
        if not message.isascii():  # or there is nothing to find out
            try:
                message.decode()
            except UnicodeDecodeError:
                self.conn.send_close(1007)
                self.handle_parser_exception()
                return
        peer.receive(message)

    def send_receive_event_to_app(self) -> None:
        """A whole message that went through the parser."""
        if self.close_timer is None:
            super().send_receive_event_to_app()
            return
        message = bytes(self.frames[0]) if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self._peer is None:
            return
        if self.curr_msg_data_type == "text":
            self._take_text(self._peer, message)
        else:
            self._peer.receive(message)

    def handle_close(self, event: Frame) -> None:
        self._let_go()
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        self._release()
        self._let_go()
        super().handle_parser_exception()


class RawHttpProtocol(_Streaming, HttpToolsProtocol):
    """A `Wire` for one chunked response that never ends, once it was taken over.

    `at_once` is asked for every whole request of the plain kind, with its scope and body, and answers None to have
    it go through ASGI; it must not block, and the application sees nothing of what it answers. A coroutine makes its
    first step here, which is its last where it has nothing to wait for.
    """

    encode = staticmethod(sse_chunk)
    at_once: AtOnce | None = None
    _is_taken = False
    _is_parsing = False
    _begun: tuple[RequestResponseCycle, ASGI3Application] | None = None

    @classmethod
    def answering(cls, at_once: AtOnce) -> type["RawHttpProtocol"]:
        """This protocol for one server."""
        return type(cls.__name__, (cls,), {"at_once": staticmethod(at_once)})

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

    def beat(self, message: bytes) -> bool:
        self.post(message)
        return True

    def finish(self, close: CloseCode) -> None:  # noqa: ARG002  # `bye` has said why
        self.transport.write(b"0\r\n\r\n")
        self.transport.close()
        self._abort_timer = self.loop.call_later(CLOSE_S, self.transport.abort)
        self._let_go()

    def hold_reading(self) -> None:
        """A client of an event stream has nothing to say."""

    def go_on_reading(self) -> None:
        """See `hold_reading`."""

    def data_received(self, data: bytes) -> None:
        if self._is_taken:
            return
        self._is_parsing = True
        try:
            super().data_received(data)
        finally:
            self._is_parsing = False
            if self._begun is not None:
                (cycle, app), self._begun = self._begun, None
                if not self._answered(cycle):
                    self._start_asgi_task(cycle, app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Puts off the start until all that has come of the request is read."""
        if self._is_parsing:
            self._begun = cycle, app
        else:
            cast(dict[str, Any], cycle.scope)["extensions"] = {RAW: self}
            super()._start_asgi_task(cycle, app)

    def _answered(self, cycle: RequestResponseCycle) -> bool:
        """False when the application is to answer. Of pipelined requests none is answered here: their answers would
        pile up in front of a client that does not read."""
        if (
            self.at_once is None
            or cycle.more_body
            or cycle is not self.cycle
            or cycle.waiting_for_100_continue
            or not cycle.keep_alive
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return False
        try:
            found = self.at_once(cast(Scope, cycle.scope), bytes(cycle.body))
        except Exception:  # the application answers such a request as it answers any trouble
            log.exception("a request could not be answered at once", path=cycle.scope["path"])
            at_once_failures.inc()
            return False
        if found is None:
            return False
        if not isinstance(found, Whole):
            work = start_eagerly(found, self.loop)
            if not work.done() or work.cancelled() or work.exception() is not None:
                self._start_asgi_task(cycle, cast(ASGI3Application, _giving(work)))
                return True
            found = work.result()
        self._write_whole(cycle, found)
        return True

    def _write_whole(self, cycle: RequestResponseCycle, whole: Whole) -> None:
        lines = [STATUS_LINE[whole.status]]
        for name, value in cycle.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (whole.head, b"\r\n")
        if len(whole.body) <= _COPIED_BYTES_MAX:
            self.transport.write(b"".join((*lines, whole.body)))
        else:
            self.transport.write(b"".join(lines))
            self.transport.write(whole.body)
        cycle.response_started = cycle.response_complete = True
        self.on_response_complete()


def _giving(work: Awaitable[Whole]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that answers what `work` comes to."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        whole = await work
        headers = [line.split(b": ", 1) for line in whole.head.split(b"\r\n")[:-1]]
        await send({"type": "http.response.start", "status": whole.status, "headers": headers})
        await send({"type": "http.response.body", "body": whole.body})

    return app
