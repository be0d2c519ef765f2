"""REST routes made from the operation table, with an OpenAPI document that is true."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request
from fastapi.params import Param
from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo
from starlette.responses import Response

from gateway.envelope import http_response
from gateway.operations.table import Context, Operation
from gateway.replica import Replica
from services.changes.levels import parse_level

PREFIX = "/api/v1"
_IN_PATH = re.compile(r"{(\w+)}")


class Performance(BaseModel):
    duration_ms: float
    cache_hit: bool


class Envelope(BaseModel):
    """How every JSON answer looks."""

    success: bool
    data: Any
    message: str
    timestamp: str
    request_id: str
    performance: Performance


class Problem(BaseModel):
    """How every failure looks (RFC 9457), as application/problem+json."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    success: bool
    request_id: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"model": Problem, "description": "A failure, as application/problem+json."}
}
_CONSISTENCY = {
    "name": "X-Consistency",
    "in": "header",
    "required": False,
    "description": "How fresh a read must be: bounded, session=<seq or event id>, linearizable.",
    "schema": {"type": "string", "default": "bounded"},
}


def context_of(request: Request, replica: Replica) -> Context:
    principal = request.state.principal
    caller = principal.caller("rest", request.headers.get("x-session-id", "")[:128])
    return Context(replica, principal, caller, parse_level(request.headers.get("x-consistency", "")))


def rest_router(replica: Replica, operations: tuple[Operation, ...]) -> APIRouter:
    router = APIRouter(prefix=PREFIX)
    for operation in operations:
        if operation.http is None:
            continue
        method, path = operation.http
        router.add_api_route(
            path,
            _endpoint(replica, operation),
            methods=[method],
            name=operation.name,
            operation_id=operation.name,
            summary=operation.summary,
            response_model=Envelope,
            responses=PROBLEMS,
            openapi_extra={"parameters": [_CONSISTENCY]},
        )
    return router


def _endpoint(replica: Replica, operation: Operation) -> Callable[..., Any]:
    """A function whose signature tells FastAPI where each parameter is found."""

    async def endpoint(request: Request, **values: Any) -> Response:
        rest = values.pop("rest", None)
        if rest is not None:
            values.update(rest.model_dump())
        answer = await operation(context_of(request, replica), operation.params(**values))
        return http_response(request, answer)

    endpoint.__signature__ = _signature(operation)  # type: ignore[attr-defined]  # what inspect.signature reads
    return endpoint


def _signature(operation: Operation) -> inspect.Signature:
    assert operation.http is not None
    method, path = operation.http
    in_path = set(_IN_PATH.findall(path))
    fields = operation.params.model_fields
    parameters = [_parameter("request", Request)]
    parameters += [_parameter(name, _in_path(fields[name])) for name in fields if name in in_path]
    others = {name: (field.annotation, field) for name, field in fields.items() if name not in in_path}
    if others:
        model = create_model(
            f"{operation.params.__name__}{'Query' if method in ('GET', 'DELETE') else 'Body'}",
            # A query is text and is converted; a JSON body says its types itself.
            __config__=ConfigDict(extra="forbid", strict=method == "POST"),
            **others,  # type: ignore[call-overload]  # pydantic types this as literal keywords
        )
        place: Any = Query() if method in ("GET", "DELETE") else Body()
        parameters.append(_parameter("rest", Annotated[model, place]))
    return inspect.Signature(parameters)


def _in_path(field: FieldInfo) -> Any:
    place: Param = Path(description=field.description)
    return Annotated[(field.annotation, place, *field.metadata)]


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
