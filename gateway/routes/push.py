"""Live streams: WebSocket RPC at /ws, server-sent events at /events."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, WebSocket
from starlette.responses import Response

from gateway import openrpc
from gateway.envelope import with_meta
from gateway.failures import rpc_error
from gateway.operations.table import Context, Operation, parse
from gateway.principal import Principal
from gateway.replica import Replica
from gateway.routes.trace import trace_response
from notifier.close_codes import FORBIDDEN
from notifier.rpc import Command, RpcCall, RpcRegistry
from notifier.sse import sse_response
from notifier.topics import UnknownTopic
from notifier.websocket import serve_websocket
from services.changes.levels import parse_level
from services.failures import Invalid

DEFAULT_TOPICS = "skills,tools"


class _Meta(msgspec.Struct, frozen=True):
    consistency: str = ""


class _WithLevel(msgspec.Struct, frozen=True):
    """The part of a call's params that says how fresh a read must be."""

    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


def rpc_registry(replica: Replica, operations: tuple[Operation, ...]) -> RpcRegistry:
    """Every operation of the table as a command of the same name, and one that describes them all."""
    registry = RpcRegistry(rpc_error)
    for operation in operations:
        registry.add(operation.name, _command(replica, operation), operation.timeout_s)

    @registry.command(openrpc.METHOD)
    def discover(_: RpcCall) -> bytes:
        return msgspec.json.encode(openrpc.document(operations, replica.version))

    return registry


def _command(replica: Replica, operation: Operation) -> Command:
    async def command(call: RpcCall) -> bytes:
        principal = call.principal
        assert isinstance(principal, Principal)
        params = call.decoded(dict)
        params.pop("_meta", None)
        level = parse_level(call.decoded(_WithLevel).meta.consistency)
        context = Context(replica, principal, principal.caller("websocket"), level)
        return with_meta(await operation(context, parse(operation.params, params)))

    return command


def push_router(replica: Replica, rpc: RpcRegistry) -> APIRouter:
    router = APIRouter()

    @router.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        principal = socket.state.principal
        if "read" not in principal.scopes:
            await socket.accept()
            await socket.close(FORBIDDEN.code, FORBIDDEN.reason)
            return
        await serve_websocket(socket, replica.notifier, rpc, principal.viewer, principal)

    @router.api_route(
        "/events",
        methods=["GET", "HEAD"],
        operation_id="events",
        summary="Events as they happen (text/event-stream).",
        response_class=Response,
    )
    async def events(
        request: Request,
        topics: Annotated[str, Query(max_length=2000, description="Comma-separated topics.")] = DEFAULT_TOPICS,
        since: Annotated[str | None, Query(max_length=64, description="Only what came after this event id.")] = None,
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> Response:
        principal = request.state.principal
        principal.require("read")
        try:
            # A reconnecting EventSource repeats its URL, `since` included; its header is newer.
            return sse_response(replica.notifier, principal.viewer, topics.split(","), last_event_id or since)
        except UnknownTopic as error:
            raise Invalid(str(error), code="unknown_topic") from error

    @router.get(
        "/api/v1/cache/trace/{key:path}",
        operation_id="trace_key",
        summary="What happens to one key of the cache, as it happens (text/event-stream).",
        response_class=Response,
    )
    async def trace(request: Request, key: Annotated[str, Path(max_length=300)]) -> Response:
        principal = request.state.principal
        principal.require("admin")  # a key names things that not everybody sees
        return trace_response(replica, principal, key)

    return router
