"""What goes wrong, as each edge says it: problem+json for HTTP, an error object for RPC.

The one place where `ServiceError` and everything unexpected become answers; no route catches
for translation. Members: RFC 9457's `type`, `title`, `status`, `detail`, then `code`,
`success: false`, `request_id` and the error's own facts.
"""

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from starlette.responses import Response

from notifier.rpc import RpcError
from services import failures, metrics

log = structlog.get_logger(__name__)

_STATUS: dict[type[failures.ServiceError], int] = {
    failures.Invalid: 400,
    failures.TooLarge: 413,
    failures.NotFound: 404,
    failures.Conflict: 409,
    failures.Forbidden: 403,
    failures.Timeout: 504,
    failures.Exhausted: 429,
    failures.Unavailable: 503,
    failures.Full: 507,
    failures.ToolFailed: 502,
}
# JSON-RPC leaves -32000 to -32099 to the server.
_RPC_CODE: dict[type[failures.ServiceError], int] = {
    failures.Invalid: -32602,
    failures.TooLarge: -32602,
    failures.NotFound: -32004,
    failures.Conflict: -32009,
    failures.Forbidden: -32003,
    failures.Timeout: -32008,
    failures.Exhausted: -32029,
    failures.Unavailable: -32010,
    failures.ToolFailed: -32011,
}
INTERNAL = "something went wrong here; the log names it under this request id"


def _own(table: dict[type[failures.ServiceError], int], error: failures.ServiceError, default: int) -> int:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)


def status_of(error: failures.ServiceError) -> int:
    return _own(_STATUS, error, 500)


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    facts: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An `application/problem+json` answer."""
    metrics.failures.labels(code).inc()
    members = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "success": False,
        "request_id": request_id,
    }
    # A fact of the same name must not become, say, the status; and the members stay in front.
    body = {**members, **(facts or {}), **members}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


def http_answer(error: Exception, request_id: str) -> Response:
    """The answer for any exception; an unexpected one is logged and says nothing of itself."""
    if isinstance(error, failures.ServiceError):
        headers = None
        if isinstance(error, failures.Exhausted):
            headers = {"retry-after": str(max(1, round(error.retry_after_s)))}
        elif isinstance(error, failures.Unavailable):
            headers = {"retry-after": "1"}
        return problem(status_of(error), error.code, error.message, request_id, dict(error.facts), headers)
    log.error("unexpected failure", exc_info=error)
    return problem(500, "internal", INTERNAL, request_id)


def rpc_error(error: Exception) -> RpcError:
    """The same for WebSocket RPC; `data` carries the code and the facts."""
    if isinstance(error, failures.ServiceError):
        metrics.failures.labels(error.code).inc()
        data: dict[str, Any] = {"code": error.code, **error.facts}
        if isinstance(error, failures.Exhausted):
            data["retryAfterMs"] = round(error.retry_after_s * 1000)
        return RpcError(_own(_RPC_CODE, error, -32603), error.message, data)
    metrics.failures.labels("internal").inc()
    log.error("unexpected failure", exc_info=error)
    return RpcError(-32603, INTERNAL, {"code": "internal"})
