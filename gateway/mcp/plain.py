"""The plainest form of a 2026-07-28 request: known headers that agree with the body, known members, nothing else.

Whatever is not of this form is the SDK's to read, and to refuse.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.mcp.streams import Filter
from gateway.mcp.wire import MODERN, TASKS_EXTENSION

# A request of the plain form is far below; what is larger is read by the SDK alone.
BODY_BYTES_MAX = 64 * 1024
_LENGTH_DIGITS_MAX = len(str(BODY_BYTES_MAX))
CALL = "tools/call"
LISTEN = "subscriptions/listen"
_MODERN = MODERN.encode()
_NONE: dict[str, Any] = {}
_ROUTING = frozenset(
    (b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"content-length", b"content-type", b"accept")
)
# Clients send one each, many times.
_TYPES_MAX = 64

_P = "io.modelcontextprotocol/"


class _Meta(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal["2026-07-28"] = msgspec.field(name=f"{_P}protocolVersion")
    capabilities: dict[str, Raw] = msgspec.field(name=f"{_P}clientCapabilities")
    client: dict[str, Raw] | UnsetType = msgspec.field(name=f"{_P}clientInfo", default=UNSET)
    traceparent: str | UnsetType = UNSET
    tracestate: str | UnsetType = UNSET


class _Params(msgspec.Struct, forbid_unknown_fields=True):
    """`argument` is what the answer depends on, besides who asks."""

    meta: _Meta = msgspec.field(name="_meta")

    @property
    def argument(self) -> str:
        return ""


class _Paged(_Params):
    # One that is given and empty is the SDK's to refuse.
    cursor: Annotated[str, msgspec.Meta(min_length=1)] = ""

    @property
    def argument(self) -> str:
        return self.cursor


class _OfUri(_Params, kw_only=True):
    uri: str

    @property
    def argument(self) -> str:
        return self.uri


class _Call(_Params, kw_only=True):
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def argument(self) -> str:
        return self.name


class _Listen(_Params, kw_only=True):
    notifications: Filter


_TParams = TypeVar("_TParams", bound=_Params)


class _Request(msgspec.Struct, Generic[_TParams], forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int | str
    method: str
    params: _TParams


_KINDS: dict[str, type[_Params]] = {
    **dict.fromkeys(("server/discover", "tools/list", "prompts/list", "resources/templates/list"), _Params),
    **dict.fromkeys(("skills/list", "resources/list"), _Paged),
    **dict.fromkeys(("skills/get", "resources/read"), _OfUri),
    CALL: _Call,
    LISTEN: _Listen,
}
_DECODES: dict[bytes, Callable[[bytes], _Request[Any]]] = {
    method.encode(): msgspec.json.Decoder(_Request[kind]).decode  # type: ignore[valid-type]  # known when it runs
    for method, kind in _KINDS.items()
}
_decode_extensions = msgspec.json.Decoder(dict[str, Raw]).decode
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


@lru_cache(_TYPES_MAX)
def _is_served(content_type: bytes, accept: bytes) -> bool:
    """Whether the SDK reads such a body and answers such a client, but for wildcards, which it may look at itself."""
    accepted = {each.partition(b";")[0].strip().lower() for each in accept.split(b",")}
    is_json = content_type.lower().startswith(b"application/json")
    return is_json and accepted >= {b"application/json", b"text/event-stream"}


def routing_of(headers: Headers) -> dict[bytes, bytes] | None:
    """The headers that decide, each given once, trimmed; None for a request that is not of the plain form."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _ROUTING:
            if name in found:
                return None
            found[name] = value.strip(b" \t")
        elif name.startswith(b"mcp-"):  # Mcp-Param-*, Mcp-Session-Id, and what may come
            return None
    length = found.get(b"content-length", b"")
    if (
        found.get(b"mcp-protocol-version") != _MODERN
        or found.get(b"mcp-method") not in _DECODES
        or not _is_served(found.get(b"content-type", b""), found.get(b"accept", b""))
        or not length.isdigit()
        or len(length) > _LENGTH_DIGITS_MAX
        or int(length) > BODY_BYTES_MAX
    ):
        return None
    return found


def parse(body: bytes, routing: dict[bytes, bytes]) -> Ask | None:
    """None for whatever the SDK should look at more closely."""
    try:
        request = _DECODES[routing[b"mcp-method"]](body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    method, params = request.method, cast(_Params, request.params)
    argument = params.argument
    is_plain = argument.isascii() and (isinstance(request.id, int) or request.id.isascii())
    if method.encode() != routing[b"mcp-method"] or not is_plain or not _is_named(params, argument, method, routing):
        return None
    id_, arguments, wanted = _encode(request.id), _NONE, None
    if isinstance(params, _Call):
        arguments = params.arguments
    elif isinstance(params, _Listen):
        wanted = params.notifications
        if wanted.task_ids and not _declares_tasks(params.meta.capabilities):
            return None
    return Ask(id_, method, argument, arguments, wanted)


def _is_named(params: _Params, argument: str, method: str, routing: dict[bytes, bytes]) -> bool:
    """Whether the header says what the body does."""
    named = routing.get(b"mcp-name")
    if isinstance(params, _OfUri):
        # `skills/get` need not name it in a header; some clients do.
        is_named = named == argument.encode() or (named is None and method == "skills/get")
        return is_named and argument.startswith("skill://")
    return (named or b"") == (argument.encode() if isinstance(params, _Call) else b"")


def _declares_tasks(capabilities: dict[str, Raw]) -> bool:
    try:
        return TASKS_EXTENSION in _decode_extensions(capabilities.get("extensions", b"{}"))
    except msgspec.DecodeError:
        return False
