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

from services.cache.tiered import Read
from services.changes.log import Bound
from services.clock import utc_now


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


def http_response(request: Request, answer: Reply, status: int = 200) -> Response:
    """The envelope with its headers, or 304 when the client has this state."""
    reading = request.method == "GET"
    headers = _headers(answer, reading)
    if reading and _matches(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    state = request.state
    duration_ms = (time.perf_counter() - state.started) * 1000
    hit = answer.source is not None and answer.source.tier != "l3"
    headers["server-timing"] = f"app;dur={duration_ms:.2f}"
    body = (
        b'{"success":true,"data":%s,"message":"","timestamp":"%s","request_id":"%s",'
        b'"performance":{"duration_ms":%.3f,"cache_hit":%s}}'
        % (answer.data, utc_now().encode(), state.request_id.encode(), duration_ms, b"true" if hit else b"false")
    )
    return Response(body, status, headers, media_type="application/json")


def _headers(answer: Reply, reading: bool) -> dict[str, str]:
    headers: dict[str, str] = {}
    if reading:
        headers["cache-status"] = cache_status(answer.source)
        tag = answer.etag or hashlib.sha256(answer.data).hexdigest()[:16]
        # Weak: the data is equal, the envelope's stamps are not (RFC 9110, section 8.8.1).
        headers["etag"] = f'W/"{tag}"'
        headers["cache-control"] = "private, no-cache"
    if answer.seq is not None:
        headers["x-seq"] = str(answer.seq)
    if answer.position is not None:
        headers["x-position"] = answer.position
    return headers


def cache_status(source: Source | None) -> str:
    """RFC 9211: `skillwire; hit; detail="..."`, or that this answer is never cached."""
    if source is None:
        return "skillwire; fwd=bypass"
    tier, bound = source
    state = "fwd=miss" if tier == "l3" else "hit"
    stale = " stale" if bound.stale else ""
    return f'skillwire; {state}; detail="tier={tier} asof={bound.asof} lag={bound.lag_s:.3f}{stale}"'


def _matches(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return given == "*" or etag in (part.strip() for part in given.split(","))
