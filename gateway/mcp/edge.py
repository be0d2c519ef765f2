"""MCP's edge, pure ASGI in front of the SDK: what was answered before is answered from its bytes.

The SDK answers first; its result is kept, encoded, for whoever sees the same (`answers.py`), and
given again while the log says that nothing it was made from has changed. Only requests of the plain
form are read here (`plain.py`). Everything unusual, and every error, is the SDK's: the request is
replayed into it as it came.
"""

from collections.abc import Coroutine
from typing import Any

import msgspec
from msgspec import Raw
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.failures import retry_headers, rpc_error, status_of
from gateway.lane import Asked
from gateway.mcp.answers import Answers, Key
from gateway.mcp.meta_tools import QUICK_TOOLS, call_meta
from gateway.mcp.plain import CALL, LISTEN, Ask, parse, routing_of, trimmed
from gateway.mcp.skill_list import SkillList
from gateway.mcp.streams import Filter, ListenStreams
from gateway.mcp.tasks import admitted
from gateway.mcp.wire import server_info
from gateway.operations.table import Context
from gateway.principal import Principal
from gateway.replica import Replica
from notifier.protocol import encode_error
from notifier.raw import Whole
from services import metrics
from services.failures import ServiceError

PATH = "/mcp"
# From here on two writes cost less than a copy.
_COPIED_BYTES_MAX = 64 * 1024
_P = "io.modelcontextprotocol/"
_LISTEN = LISTEN.encode()
_BY_EDGE = metrics.mcp_answers.labels("edge")
_BY_SDK = metrics.mcp_answers.labels("sdk")


class _Answered(msgspec.Struct):
    result: Raw


_decode_answered = msgspec.json.Decoder(_Answered).decode
_encode = msgspec.json.Encoder().encode


class McpEdge:
    """Serves `PATH` with `sdk` and leaves everything else to `app`. It is a lane, too."""

    def __init__(self, app: ASGIApp, sdk: ASGIApp, replica: Replica, streams: ListenStreams) -> None:
        self._streams = streams
        self._app = app
        self._sdk = sdk
        self._replica = replica
        self._server_meta = {f"{_P}serverInfo": server_info(replica.version)}
        self._listing = SkillList(replica.view, self._server_meta)
        self.answers = Answers(replica.feed, replica.view)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = headers = trimmed(scope["headers"])
        routing = routing_of(headers) if scope["method"] == "POST" else None
        if routing is None or "read" not in scope["state"]["principal"].scopes:
            _BY_SDK.inc()
            await self._sdk(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        ask = parse(body, routing)
        if ask is None or not await self._answer(ask, scope, body, receive, send):
            _BY_SDK.inc()
            await self._sdk(scope, _replayed(body, receive), send)

    async def _answer(self, ask: Ask, scope: Scope, body: bytes, receive: Receive, send: Send) -> bool:
        """False when nothing was sent, and the SDK is to answer."""
        principal: Principal = scope["state"]["principal"]
        if ask.wanted is not None:
            await self._listen(ask, ask.wanted, principal, receive, send)
            return True
        if ask.method == CALL:
            if ask.argument not in QUICK_TOOLS:
                return False
            await _send(send, await self._called(ask, principal), ask.id)
            return True
        key = Key(principal.viewer, ask.method, ask.argument)
        data = self._kept(key)
        if data is not None:
            await _send(send, data, ask.id)
            return True
        state = self.answers.state(ask.argument)
        if state is None:
            return False
        _BY_SDK.inc()
        heard = _Heard(send)
        await self._sdk(scope, _replayed(body, receive), heard)
        if (result := heard.result()) is not None:
            self.answers.keep(key, state, result)
        return True

    def takes(self, scope: Scope) -> bool:
        return bool(scope["path"] == PATH and scope["method"] == "POST")

    def answer(self, asked: Asked) -> Whole | Coroutine[Any, Any, Whole] | None:
        """As a lane: an answer that is kept, or that of a quick tool, to a request of the plain form."""
        if asked.headers.get(b"mcp-method") == _LISTEN or "read" not in asked.principal.scopes:
            return None
        routing = routing_of(asked.scope["headers"])
        ask = parse(asked.body, routing) if routing is not None else None
        if ask is None:
            return None
        if ask.method == CALL:
            return self._call(ask, asked.principal) if ask.argument in QUICK_TOOLS else None
        data = self._kept(Key(asked.principal.viewer, ask.method, ask.argument))
        return _whole(data, ask.id) if data is not None else None

    def _kept(self, key: Key) -> bytes | None:
        data = self.answers.find(key)
        if data is None and key.method == "skills/list" and self._replica.feed.is_fresh:
            data = self._listed(key)
        if data is None or (key.method == "tools/list" and not self._replica.tool_lists.hit(("mcp", key.viewer))):
            return None
        _BY_EDGE.inc()
        return data

    def _listed(self, key: Key) -> bytes | None:
        state, data = self.answers.state(""), self._listing.page(key.viewer, key.argument)
        if state is not None and data is not None:
            self.answers.keep(key, state, data)
        return data

    async def _listen(self, ask: Ask, wanted: Filter, principal: Principal, receive: Receive, send: Send) -> None:
        try:
            wanted, task_states = await admitted(self._streams, self._replica.runs, wanted, principal)
        except ServiceError as error:
            told = rpc_error(error)
            body = encode_error(ask.id, told.code, told.message, told.data)
            headers = [(name.encode(), value.encode()) for name, value in retry_headers(error).items()]
            await _send_whole(send, body, status_of(error), *headers)
            return
        _BY_EDGE.inc()
        await self._streams.serve(ask.id, wanted, principal, receive, send, task_states)

    async def _call(self, ask: Ask, principal: Principal) -> Whole:
        return _whole(await self._called(ask, principal), ask.id)

    async def _called(self, ask: Ask, principal: Principal) -> bytes:
        """The answer up to where its id follows."""
        context = Context(self._replica, principal, principal.caller("mcp"))
        result = await call_meta(context, ask.argument, ask.arguments)
        result["_meta"] = {**result.get("_meta", {}), **self._server_meta}
        _BY_EDGE.inc()
        return b'{"jsonrpc":"2.0","result":' + _encode(result)


class _Heard:
    """Passes an answer on and remembers it, if it is one JSON body with a result."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_json = False
        self._body: bytes | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            self._is_json = message["status"] == 200 and (b"content-type", b"application/json") in headers
        elif self._is_json:
            whole = self._body is None and not message.get("more_body")
            self._body = message.get("body", b"") if whole else b""
        await self._send(message)

    def result(self) -> bytes | None:
        """The answer up to where its id follows."""
        if not self._body:
            return None
        try:
            return b'{"jsonrpc":"2.0","result":' + bytes(_decode_answered(self._body).result)
        except msgspec.DecodeError:
            return None  # an error, which is not kept


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the client has gone. Its length was announced and is bounded."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body if message["type"] == "http.request" else None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what the client does."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _whole(data: bytes, request_id: bytes) -> Whole:
    body = b'%b,"id":%b}' % (data, request_id)
    return Whole(200, b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body), body)


async def _send(send: Send, data: bytes, request_id: bytes) -> None:
    tail = b',"id":%b}' % request_id
    if len(data) <= _COPIED_BYTES_MAX:
        await _send_whole(send, data + tail)
        return
    await send(_start(len(data) + len(tail)))
    await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": tail})


async def _send_whole(send: Send, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send(_start(len(body), status, *headers))
    await send({"type": "http.response.body", "body": body})


def _start(length: int, status: int = 200, *more: tuple[bytes, bytes]) -> Message:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length), *more]
    return {"type": "http.response.start", "status": status, "headers": headers}
