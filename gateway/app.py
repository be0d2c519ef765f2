"""The web application over an open replica."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.auth import Authenticator
from gateway.edge import Edge
from gateway.failures import http_answer, problem
from gateway.lane import HotLane
from gateway.mcp.edge import McpEdge
from gateway.mcp.forwarding import SessionForwarding
from gateway.mcp.streams import ListenStreams
from gateway.operations import OPERATIONS
from gateway.operations.table import invalid
from gateway.origin import OriginPolicy
from gateway.replica import Replica
from gateway.routes.admin import admin_router
from gateway.routes.dashboard import serve_dashboard
from gateway.routes.discovery import Discovery, DiscoveryLane, discovery_router
from gateway.routes.packages import packages_router
from gateway.routes.probes import Draining, probes_router
from gateway.routes.push import push_router, rpc_registry
from gateway.routes.rest import rest_router
from gateway.routes.uploads import uploads_router
from services.failures import ServiceError

# JSON bodies and multipart framing around the largest upload.
_BODY_SLACK_BYTES = 1024 * 1024


def create_app(
    replica: Replica,
    discovery: Discovery,
    forwarding: SessionForwarding,
    streams: ListenStreams,
    authenticator: Authenticator,
    draining: Draining,
) -> Edge:
    """Everything that is served on the port; the replica, `discovery` and `forwarding` stay the caller's to close."""
    app = FastAPI(title="Skillwire", version=replica.version, docs_url=None, redoc_url=None)
    app.include_router(probes_router(replica, draining))
    app.include_router(packages_router(replica))
    app.include_router(uploads_router(replica))
    app.include_router(discovery_router(replica, discovery))
    app.include_router(rest_router(replica, OPERATIONS))
    app.include_router(admin_router(replica))
    app.include_router(push_router(replica, rpc_registry(replica, OPERATIONS)))
    serve_dashboard(app)
    app.add_exception_handler(ServiceError, _on_failure)
    app.add_exception_handler(Exception, _on_failure)
    app.add_exception_handler(RequestValidationError, _on_bad_values)
    app.add_exception_handler(HTTPException, _on_http_exception)
    settings = replica.settings
    mcp_edge = McpEdge(app, forwarding, replica, streams)
    return Edge(
        mcp_edge,
        (HotLane(replica, OPERATIONS), mcp_edge, DiscoveryLane(discovery)),
        authenticator,
        OriginPolicy(settings),
        body_bytes_max=settings.upload_bytes_max + _BODY_SLACK_BYTES,
    )


async def _on_failure(request: Request, error: Exception) -> Response:
    request.state.answered = error  # starlette raises it again, for the server's log
    return http_answer(error, request.state.request_id)


async def _on_bad_values(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = invalid(error.errors())
    return problem(422, told.code, told.message, request.state.request_id, dict(told.facts))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):
        return http_answer(error.__cause__, request.state.request_id)  # met while the body was read
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "bad_request")
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, code, str(error.detail), request.state.request_id, headers=headers)
