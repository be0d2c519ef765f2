"""Who sent an MCP message, and how our failures look on that wire."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from gateway.failures import rpc_error
from gateway.mcp.wire import COMPLETE, CONSISTENCY_META, MODERN, TTL_MS, cache_hints, of_revision
from gateway.principal import LOCAL, Principal
from services.caller import Caller
from services.changes.levels import Level, parse_level
from services.failures import ServiceError

RequestContext = ServerRequestContext[Any, Any]


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
    """The result as complete, with the hints of caching on the wire that knows them."""
    if context.protocol_version >= MODERN:
        return result | cache_hints(revision, ttl_ms)
    return {**result, **of_revision(revision), **COMPLETE}


def one_page(params: types.PaginatedRequestParams | None) -> None:
    """For a list of one page, which gives out no cursor. Raises `MCPError` for any."""
    if params is not None and params.cursor is not None:
        raise unknown_cursor()


def unknown_cursor() -> MCPError:
    return MCPError(types.INVALID_PARAMS, "this cursor was not given out here; list again without one")


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
