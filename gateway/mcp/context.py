"""Who sent an MCP message, and how our failures look on that wire."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from gateway.failures import rpc_error
from gateway.principal import LOCAL, Principal
from services.caller import Caller
from services.changes.levels import Level, parse_level
from services.failures import ServiceError

RequestContext = ServerRequestContext[Any, Any]
MODERN = "2026-07-28"
# Required of every result by 2026-07-28; clients of before ignore it.
COMPLETE = {"resultType": "complete"}
TTL_MS = 1000
REVISION_META = "dev.skillwire/revision"
CONSISTENCY_META = "dev.skillwire/consistency"


def principal_of(context: RequestContext) -> Principal:
    """The edge put it into the request's state; over stdio it is whoever started the process."""
    return LOCAL if context.request is None else context.request.state.principal


def caller_of(context: RequestContext) -> Caller:
    if context.request is None:
        return LOCAL.caller("stdio")
    return principal_of(context).caller("mcp", context.request.headers.get("mcp-session-id", "")[:128])


def level_of(context: RequestContext) -> Level:
    """How fresh this request wants its answer. Raises `Invalid`."""
    given = (context.meta or {}).get(CONSISTENCY_META, "")
    return parse_level(given if isinstance(given, str) else "?")


def cacheable(
    context: RequestContext, result: dict[str, Any], ttl_ms: int = TTL_MS, revision: int | None = None
) -> dict[str, Any]:
    """The result as complete, with SEP-2549's hints on the wire that knows them.

    Private, because what is listed depends on who asks; a second, because a change is pushed
    but a client need not listen. Lists name the catalog's `revision`: equal ones list the same.
    """
    if context.protocol_version >= MODERN:
        return result | cache_hints(revision, ttl_ms)
    return {**result, **_of(revision), **COMPLETE}


def cache_hints(revision: int | None = None, ttl_ms: int = TTL_MS) -> dict[str, Any]:
    """What `cacheable` adds on the modern wire."""
    return {**_of(revision), "ttlMs": ttl_ms, "cacheScope": "private", **COMPLETE}


def _of(revision: int | None) -> dict[str, Any]:
    return {} if revision is None else {"_meta": {REVISION_META: revision}}


def unknown_resource(uri: str) -> MCPError:
    return MCPError(types.INVALID_PARAMS, f"there is no resource {uri}", {"uri": uri})


@contextmanager
def answering() -> Iterator[None]:
    """Our failures as JSON-RPC errors, the same as on WebSocket RPC."""
    try:
        yield
    except ServiceError as error:
        told = rpc_error(error)
        raise MCPError(told.code, told.message, told.data) from error
