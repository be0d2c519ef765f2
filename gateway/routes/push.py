"""Live streams: WebSocket RPC at /ws, server-sent events at /events."""

from collections.abc import Coroutine
from typing import Annotated, Any

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
from notifier.protocol import INVALID_PARAMS
from notifier.rpc import Command, RpcCall, RpcError, RpcRegistry
from notifier.sse import sse_response
from notifier.topics import UnknownTopic
from notifier.websocket import serve_websocket
from services.changes.levels import BOUNDED, Level, parse_level
from services.failures import Invalid

DEFAULT_TOPICS = "skills,tools"

_decode_texts = msgspec.json.Decoder(dict[str, str]).decode


class _Meta(msgspec.Struct, frozen=True):
    """The part of a call's `_meta` that says how fresh a read must be."""

    consistency: str = ""


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
    async def run(call: RpcCall) -> bytes:
        principal = call.principal
        assert isinstance(principal, Principal)
        params = call.decoded(dict[str, Any])
        level = _level(params.pop("_meta")) if "_meta" in params else BOUNDED
        context = Context(replica, principal, principal.caller("websocket"), level)
        return with_meta(await operation(context, parse(operation.params, params)))

    if operation.peek is None:
        return run
    peek, fields = operation.peek, operation.params.model_fields
    names = {name for name, field in fields.items() if field.is_required()}

    def peek_or_run(call: RpcCall) -> Coroutine[Any, Any, bytes] | bytes:
        """As the hot lane (`gateway/lane.py`): what is not quite plain, and every refusal, is left to `run`."""
        principal = call.principal
        assert isinstance(principal, Principal)
        if operation.scope not in principal.scopes:
            return run(call)
        try:
            values = _decode_texts(call.params)
        except msgspec.DecodeError:
            return run(call)
        found = peek(replica, principal, values) if values.keys() == names else None
        return run(call) if found is None else found[0].value

    return peek_or_run


def _level(meta: object) -> Level:
    try:
        return parse_level(msgspec.convert(meta, _Meta).consistency)
    except msgspec.ValidationError as exc:
        raise RpcError(INVALID_PARAMS, "Invalid params", {"code": "invalid", "detail": f"_meta: {exc}"}) from exc


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
