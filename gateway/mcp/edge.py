"""MCP's edge, pure ASGI in front of the SDK: what was answered before is answered from its bytes.

The SDK answers first; its result is kept, encoded, for whoever sees the same (`answers.py`), and
given again while the log says that nothing it was made from has changed. Only the plainest form of
a 2026-07-28 request is read here: known headers that agree with the body, known members, nothing
else. Everything unusual, and every error, is the SDK's: the request is replayed into it as it came.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.failures import rpc_error, status_of
from gateway.mcp.answers import Answers, Key
from gateway.mcp.context import MODERN
from gateway.mcp.streams import Filter, ListenStreams
from gateway.mcp.tasks import EXTENSION as TASKS_EXTENSION
from gateway.mcp.tasks import own_tasks, task_heads
from gateway.mcp.tools import QUICK_TOOLS, call_meta
from gateway.operations.table import Context
from gateway.principal import Principal
from gateway.replica import Replica
from services import metrics
from services.failures import ServiceError

PATH = "/mcp"
# A request of the plain form is far below; what is larger is read by the SDK alone.
BODY_BYTES_MAX = 64 * 1024
# From here on two writes cost less than a copy.
_COPIED_BYTES_MAX = 64 * 1024
LISTEN = "subscriptions/listen"
_ONE_PAGE = frozenset(("server/discover", "tools/list", "prompts/list", "resources/templates/list"))
_PAGED = frozenset(("skills/list", "resources/list"))
_OF_URI = frozenset(("skills/get", "resources/read"))
_KNOWN = frozenset(method.encode() for method in (*_ONE_PAGE, *_PAGED, *_OF_URI, "tools/call", LISTEN))
_ROUTING = frozenset((b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"content-length", b"accept"))
_BY_EDGE = metrics.mcp_answers.labels("edge")
_BY_SDK = metrics.mcp_answers.labels("sdk")

_MEMBERS = ("cursor", "uri", "name", "arguments", "notifications")
_P = "io.modelcontextprotocol/"


class _Meta(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal["2026-07-28"] = msgspec.field(name=f"{_P}protocolVersion")
    capabilities: Raw = msgspec.field(name=f"{_P}clientCapabilities")
    client: Raw | UnsetType = msgspec.field(name=f"{_P}clientInfo", default=UNSET)
    traceparent: str | UnsetType = UNSET
    tracestate: str | UnsetType = UNSET


class _Params(msgspec.Struct, forbid_unknown_fields=True):
    meta: _Meta = msgspec.field(name="_meta")
    cursor: str | UnsetType = UNSET
    uri: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: dict[str, Any] | UnsetType = UNSET
    notifications: Filter | UnsetType = UNSET


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int | str
    method: str
    params: _Params


class _Answered(msgspec.Struct):
    result: Raw


class _Capabilities(msgspec.Struct):
    extensions: dict[str, Raw] = msgspec.field(default_factory=dict)


_decode = msgspec.json.Decoder(_Request).decode
_decode_capabilities = msgspec.json.Decoder(_Capabilities).decode
_decode_answered = msgspec.json.Decoder(_Answered).decode
_encode = msgspec.json.Encoder().encode


class Ask(NamedTuple):
    """A plain request; `argument` is its cursor, URI or tool."""

    id: bytes
    method: str
    argument: str
    arguments: dict[str, Any]
    wanted: Filter | None


class McpEdge:
    """Serves `PATH` with `sdk` and leaves everything else to `app`."""

    def __init__(
        self, app: ASGIApp, sdk: ASGIApp, replica: Replica, streams: ListenStreams, server_info: dict[str, Any]
    ) -> None:
        self._streams = streams
        self._app = app
        self._sdk = sdk
        self._replica = replica
        self._server_meta = {f"{_P}serverInfo": server_info}
        self.answers = Answers(replica.feed, replica.view)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = headers = _trimmed(scope["headers"])
        routing = _routing(headers) if scope["method"] == "POST" else None
        if routing is None or "read" not in scope["state"]["principal"].scopes:
            _BY_SDK.inc()
            await self._sdk(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        ask = _parse(body, routing)
        if ask is None or not await self._answer(ask, scope, body, receive, send):
            _BY_SDK.inc()
            await self._sdk(scope, _replayed(body, receive), send)

    async def _answer(self, ask: Ask, scope: Scope, body: bytes, receive: Receive, send: Send) -> bool:
        """False when nothing was sent, and the SDK is to answer."""
        principal: Principal = scope["state"]["principal"]
        if ask.wanted is not None:
            await self._listen(ask, ask.wanted, principal, receive, send)
            return True
        if ask.method == "tools/call":
            if ask.argument not in QUICK_TOOLS:
                return False
            await self._call(ask, principal, send)
            return True
        key = Key(principal.viewer, ask.method, ask.argument)
        data = self.answers.find(key)
        if data is not None and (ask.method != "tools/list" or self._replica.tool_lists.hit(("mcp", key.viewer))):
            _BY_EDGE.inc()
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

    async def _listen(self, ask: Ask, wanted: Filter, principal: Principal, receive: Receive, send: Send) -> None:
        try:
            self._streams.admit(wanted, principal)
            runs = self._replica.runs
            own = await own_tasks(runs, wanted.task_ids, principal)
        except ServiceError as error:
            told = rpc_error(error)
            problem = {"code": told.code, "message": told.message, "data": told.data}
            await _send(send, b'{"jsonrpc":"2.0","error":' + _encode(problem), ask.id, status_of(error))
            return
        _BY_EDGE.inc()
        wanted = msgspec.structs.replace(wanted, task_ids=own)

        async def task_states() -> list[bytes]:
            return [*(await task_heads(runs, own)).values()]

        await self._streams.serve(ask.id, wanted, principal, receive, send, task_states)

    async def _call(self, ask: Ask, principal: Principal, send: Send) -> None:
        context = Context(self._replica, principal, principal.caller("mcp"))
        result = await call_meta(context, ask.argument, ask.arguments)
        result["_meta"] = {**result.get("_meta", {}), **self._server_meta}
        _BY_EDGE.inc()
        await _send(send, b'{"jsonrpc":"2.0","result":' + _encode(result), ask.id)


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


Headers = Sequence[tuple[bytes, bytes]]


def _trimmed(headers: Headers) -> Headers:
    """Without white space around values, which RFC 9110 leaves out and httptools leaves in."""
    if all(value.strip(b" \t") == value for _, value in headers):
        return headers
    return [(name, value.strip(b" \t")) for name, value in headers]


def _routing(headers: Headers) -> dict[bytes, bytes] | None:
    """The headers that decide, each given once; None for a request that is not of the plain form."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ROUTING:
            if name in found:
                return None
            found[name] = value
        elif name.startswith(b"mcp-"):  # Mcp-Param-*, Mcp-Session-Id, and what may come
            return None
    accept = found.get(b"accept", b"")
    length = found.get(b"content-length", b"")
    if (
        found.get(b"mcp-protocol-version") != MODERN.encode()
        or found.get(b"mcp-method") not in _KNOWN
        or b"application/json" not in accept
        or b"text/event-stream" not in accept
        or not length.isdigit()
        or int(length) > BODY_BYTES_MAX
    ):
        return None
    return found


def _parse(body: bytes, routing: dict[bytes, bytes]) -> Ask | None:
    """None for whatever the SDK should look at more closely."""
    try:
        request = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    method, params = request.method, request.params
    if method.encode() != routing[b"mcp-method"] or not _is_object(params.meta.capabilities):
        return None
    if params.meta.client is not UNSET and not _is_object(params.meta.client):
        return None
    given = {
        name for name in ("cursor", "uri", "name", "arguments", "notifications") if getattr(params, name) is not UNSET
    }
    argument = named = ""
    if method in _PAGED:
        allowed, argument = {"cursor"}, params.cursor or ""
    elif method in _OF_URI:
        allowed, argument = {"uri"}, params.uri or ""
        # `skills/get` need not name it in a header; some clients do.
        named = argument if method == "resources/read" or b"mcp-name" in routing else ""
        if not argument.startswith("skill://"):
            return None
    elif method == "tools/call":
        allowed, argument = {"name", "arguments"}, params.name or ""
        named = argument
    elif method == LISTEN:
        allowed = {"notifications"}
    else:
        allowed = set()
    is_plain = argument.isascii() and (isinstance(request.id, int) or request.id.isascii())
    if not given <= allowed or not is_plain or routing.get(b"mcp-name", b"") != named.encode():
        return None
    wanted = params.notifications or None
    if (method == LISTEN) != (wanted is not None):
        return None
    if wanted is not None and wanted.task_ids and not _declares_tasks(params.meta.capabilities):
        return None
    return Ask(_encode(request.id), method, argument, params.arguments or {}, wanted)


def _declares_tasks(capabilities: Raw) -> bool:
    try:
        return TASKS_EXTENSION in _decode_capabilities(capabilities).extensions
    except msgspec.DecodeError:
        return False


def _is_object(raw: Raw) -> bool:
    return bytes(raw)[:1] == b"{"


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


async def _send(send: Send, data: bytes, request_id: bytes, status: int = 200) -> None:
    tail = b',"id":%s}' % request_id
    length = len(data) + len(tail)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if length <= _COPIED_BYTES_MAX:
        await send({"type": "http.response.body", "body": data + tail})
    else:
        await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": tail})
