"""The one response format: `{success, data, message, timestamp, request_id, performance}`.

`data` arrives encoded and is spliced in; nothing is encoded twice.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from notifier.raw import Whole
from services.cache.tiered import Read
from services.changes.log import Bound
from services.clock import utc_now

_CONTROL = "private, no-cache"


class Source(NamedTuple):
    """Where an answer came from: `view` (state kept current by the log), l1, l2 or l3."""

    tier: str
    bound: Bound


class Reply(NamedTuple):
    """What a use case answers, before any edge has dressed it; `data` is JSON.

    `etag` identifies the data (not the envelope, whose stamps differ every time), None to have it
    computed; `source` is None for what is read from the database each time; `seq` is a write's, and
    `position` a place of the log that holds it, None when this replica does not show it yet.
    """

    data: bytes
    source: Source | None = None
    etag: str | None = None
    seq: int | None = None
    position: str | None = None


SEQ_META = "dev.skillwire/seq"
POSITION_META = "dev.skillwire/position"


def write_meta(answer: Reply) -> dict[str, Any]:
    """What RPC and MCP say of a write in `_meta`; empty for a read."""
    if answer.seq is None:
        return {}
    return {SEQ_META: answer.seq, **({POSITION_META: answer.position} if answer.position is not None else {})}


def with_meta(answer: Reply) -> bytes:
    """The data, of a write with `_meta` as its first member."""
    meta = write_meta(answer)
    if not meta:
        return answer.data
    rest = answer.data[1:]
    assert answer.data.startswith(b"{"), "a write answers an object"
    return b'{"_meta":%s%s%s' % (msgspec.json.encode(meta), b"" if rest == b"}" else b",", rest)


def reply(value: object, source: Source | None = None, etag: str | None = None, seq: int | None = None) -> Reply:
    return Reply(msgspec.json.encode(value), source, etag, seq)


def cached(read: Read, etag: str | None = None) -> Reply:
    return Reply(read.value, Source(read.tier, read.bound), etag)


def page(lines: Sequence[bytes], next_cursor: str | None, **more: object) -> bytes:
    """`{items, next_cursor, ...}` around items that are encoded already."""
    rest = b"".join(b',"%s":%s' % (name.encode(), msgspec.json.encode(value)) for name, value in more.items())
    return b'{"items":[%s],"next_cursor":%s%s}' % (b",".join(lines), msgspec.json.encode(next_cursor), rest)


class Dressed(NamedTuple):
    """An HTTP answer as it goes out; an empty body with status 304."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def enveloped(data: bytes, request_id: str, duration_ms: float, *, hit: bool) -> bytes:
    rest = (
        f',"message":"","timestamp":"{utc_now()}","request_id":"{request_id}",'
        f'"performance":{{"duration_ms":{duration_ms:.3f},"cache_hit":{"true" if hit else "false"}}}}}'
    )
    return b'{"success":true,"data":' + data + rest.encode()


def dressed(
    answer: Reply, request_id: str, started_s: float, *, reading: bool, if_none_match: str = "", status: int = 200
) -> Dressed:
    """The envelope with its headers, or 304 when the client has this state. `started_s` is a
    `time.perf_counter` of when the request came."""
    headers: list[tuple[bytes, bytes]] = []
    if reading:
        etag = weak(answer.etag or hashlib.sha256(answer.data).hexdigest()[:16])
        headers = [
            (b"cache-status", cache_status(answer.source).encode("latin-1")),
            (b"etag", etag.encode("latin-1")),
            (b"cache-control", _CONTROL.encode()),
        ]
        if if_none_match and matches(if_none_match, etag):
            return Dressed(304, headers, b"")
    if answer.seq is not None:
        headers.append((b"x-seq", b"%d" % answer.seq))
    if answer.position is not None:
        headers.append((b"x-position", answer.position.encode("latin-1")))
    duration_ms = (time.perf_counter() - started_s) * 1000
    hit = answer.source is not None and answer.source.tier != "l3"
    body = enveloped(answer.data, request_id, duration_ms, hit=hit)
    headers += (
        (b"server-timing", b"app;dur=%.2f" % duration_ms),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json"),
    )
    return Dressed(status, headers, body)


def whole(read: Read, tag: str, request_id: str, started_s: float, if_none_match: str) -> Whole:
    """`dressed` for a cached read that goes out as it is: the same lines, written in one go."""
    etag = weak(tag)
    status = cache_status(Source(read.tier, read.bound))
    head = f"cache-status: {status}\r\netag: {etag}\r\ncache-control: {_CONTROL}\r\n"
    if if_none_match and matches(if_none_match, etag):
        return Whole(304, head.encode("latin-1"), b"")
    duration_ms = (time.perf_counter() - started_s) * 1000
    body = enveloped(read.value, request_id, duration_ms, hit=True)
    timing = f"server-timing: app;dur={duration_ms:.2f}\r\ncontent-length: {len(body)}\r\n"
    return Whole(200, f"{head}{timing}content-type: application/json\r\n".encode("latin-1"), body)


def weak(tag: str) -> str:
    """The data is equal, the envelope's stamps are not (RFC 9110, section 8.8.1)."""
    return f'W/"{tag}"'


def http_response(request: Request, answer: Reply, status: int = 200) -> Response:
    """`dressed` for a route."""
    state = request.state
    dress = dressed(
        answer,
        state.request_id,
        state.started,
        reading=request.method == "GET",
        if_none_match=request.headers.get("if-none-match", ""),
        status=status,
    )
    response = Response(dress.body, dress.status)
    response.raw_headers = dress.headers
    return response


def cache_status(source: Source | None) -> str:
    """RFC 9211: `skillwire; hit; detail="..."`, or that this answer is never cached."""
    if source is None:
        return "skillwire; fwd=bypass"
    tier, bound = source
    state = "fwd=miss" if tier == "l3" else "hit"
    stale = " stale" if bound.stale else ""
    return f'skillwire; {state}; detail="tier={tier} asof={bound.asof} lag={bound.lag_s:.3f}{stale}"'


def matches(if_none_match: str, etag: str) -> bool:
    return if_none_match == "*" or etag in (part.strip() for part in if_none_match.split(","))
