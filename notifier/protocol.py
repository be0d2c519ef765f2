"""JSON-RPC 2.0 without I/O: text to messages, results to bytes (https://www.jsonrpc.org/specification).

Ids are kept as the JSON they came in, so that `1`, `1.0` and `"1"` are three ids and each is echoed as sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Raw

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class Request(msgspec.Struct, frozen=True):
    """`params` is a JSON object or array, or None when it was left out."""

    id: bytes
    method: str
    params: Raw | None


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: Raw | None


@dataclass(frozen=True, slots=True)
class Response:
    """The other side's answer to our request `id`; exactly one of `result` and `error` is there."""

    id: bytes
    result: Raw | None
    error: Raw | None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Not a message; `reply` is the error to send."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    messages: tuple["Message", ...]


_CONTAINERS = (b"{", b"[")

Message = Request | Notification | Response | Invalid

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_check = msgspec.json.Decoder(Raw).decode


class _Plain(msgspec.Struct):
    """What nearly every message is, read in one go."""

    jsonrpc: Literal["2.0"]
    id: Raw
    method: str
    params: Raw = Raw(b"")  # never changed


_decode_plain = msgspec.json.Decoder(_Plain).decode


def parse(text: str | bytes) -> Message | Batch:
    """Never raises: what cannot be read becomes an `Invalid`."""
    try:
        plain = _decode_plain(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _parsed(text)
    request_id, start = bytes(plain.id), bytes(plain.params)[:1]
    if _is_id(request_id) and (not start or start in _CONTAINERS):
        return Request(request_id, plain.method, plain.params if start else None)
    return _parsed(text)


def _parsed(text: str | bytes) -> Message | Batch:
    """The long way, which tells everything apart."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        if raw.lstrip(b" \t\r\n").startswith(b"["):
            items = _decode_array(raw)
            return Batch(tuple(_message(item) for item in items)) if items else _invalid()
        return _message(_check(raw))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Invalid(encode_error(b"null", PARSE_ERROR, "Parse error"))


def encode_result(request_id: bytes, result: bytes) -> bytes:
    """`result` is JSON and is spliced in as it is."""
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (request_id, result)


def encode_error(request_id: bytes, code: int, message: str, data: object = None) -> bytes:
    error = error_object(code, message, data)
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (request_id, msgspec.json.encode(error))


def error_object(code: int, message: str, data: object = None) -> dict[str, object]:
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return error


def encode_request(request_id: str, method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"method":%s,"params":%s}' % (
        msgspec.json.encode(request_id),
        msgspec.json.encode(method),
        params,
    )


def encode_notification(method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (msgspec.json.encode(method), params)


def encode_batch(replies: Sequence[bytes]) -> bytes:
    return b"[%s]" % b",".join(replies)


def _message(item: Raw) -> Message:
    try:
        members = _decode_object(item)
    except msgspec.ValidationError:  # good JSON, but not an object
        return _invalid()
    request_id = bytes(members["id"]) if "id" in members else None
    if request_id is not None and not _is_id(request_id):
        return _invalid()
    if members.get("jsonrpc") != Raw(b'"2.0"'):
        return _invalid(request_id)
    if "method" in members:
        return _call(members, request_id)
    result, error = members.get("result"), members.get("error")
    if request_id is not None and (result is None) != (error is None):
        return Response(request_id, result, error)
    return _invalid(request_id)


def _call(members: dict[str, Raw], request_id: bytes | None) -> Message:
    try:
        method = _decode_string(members["method"])
    except msgspec.ValidationError:
        return _invalid(request_id)
    params = members.get("params")
    if params is not None and bytes(params)[:1] not in _CONTAINERS:
        return _invalid(request_id)
    return Notification(method, params) if request_id is None else Request(request_id, method, params)


def _is_id(raw: bytes) -> bool:
    return raw == b"null" or raw[:1] in b'"-0123456789'


def _invalid(request_id: bytes | None = None) -> Invalid:
    return Invalid(encode_error(request_id or b"null", INVALID_REQUEST, "Invalid Request"))
