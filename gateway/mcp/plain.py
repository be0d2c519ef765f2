"""The plainest form of a 2026-07-28 request: known headers that agree with the body, known members, nothing else.

Whatever is not of this form is the SDK's to read, and to refuse.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.mcp.context import MODERN
from gateway.mcp.streams import Filter
from gateway.mcp.tasks import EXTENSION as TASKS_EXTENSION

# A request of the plain form is far below; what is larger is read by the SDK alone.
BODY_BYTES_MAX = 64 * 1024
LISTEN = "subscriptions/listen"
_ONE_PAGE = frozenset(("server/discover", "tools/list", "prompts/list", "resources/templates/list"))
_PAGED = frozenset(("skills/list", "resources/list"))
_OF_URI = frozenset(("skills/get", "resources/read"))
_KNOWN = frozenset(method.encode() for method in (*_ONE_PAGE, *_PAGED, *_OF_URI, "tools/call", LISTEN))
_ROUTING = frozenset((b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"content-length", b"accept"))

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


class _Capabilities(msgspec.Struct):
    extensions: dict[str, Raw] = msgspec.field(default_factory=dict)


_decode = msgspec.json.Decoder(_Request).decode
_decode_capabilities = msgspec.json.Decoder(_Capabilities).decode
_encode = msgspec.json.Encoder().encode


class Ask(NamedTuple):
    """A plain request; `argument` is its cursor, URI or tool."""

    id: bytes
    method: str
    argument: str
    arguments: dict[str, Any]
    wanted: Filter | None


Headers = Sequence[tuple[bytes, bytes]]


def trimmed(headers: Headers) -> Headers:
    """Without white space around values, which RFC 9110 leaves out and httptools leaves in."""
    if all(value.strip(b" \t") == value for _, value in headers):
        return headers
    return [(name, value.strip(b" \t")) for name, value in headers]


def routing_of(headers: Headers) -> dict[bytes, bytes] | None:
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


def parse(body: bytes, routing: dict[bytes, bytes]) -> Ask | None:
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
