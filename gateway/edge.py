"""The outermost layer, pure ASGI: what holds for every request whatever answers it.

Gives each request an id and a start time, refuses foreign hosts and origins, finds the
principal, bounds bodies, and afterwards counts, logs and hardens the answer. WebSockets pass the
same checks before they are accepted. A repeated read is answered here, in a lane, if it can be
(`lane.py`).
"""

import logging
import re
import secrets
import time
from collections.abc import Coroutine, Iterable, Sequence
from functools import lru_cache
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

import structlog
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import Authenticator
from gateway.failures import http_answer, problem
from gateway.lane import Asked, Lane
from gateway.origin import OriginPolicy
from gateway.principal import Principal
from notifier.close_codes import UNAUTHENTICATED
from notifier.raw import Whole
from services import metrics
from services.failures import TooLarge
from services.skills.archive import EntryCount

log = structlog.get_logger(__name__)
# structlog asks it too, but only after all that is to be said has been put together.
_level = logging.getLogger(__name__)

_OPEN = re.compile(r"/(livez|readyz|health|metrics|favicon\.svg|index\.html|assets/.*)?")
_TICKETED = ("/ws", "/events")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY = {
    "content-security-policy": "default-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; object-src 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
_SECURITY_LINES = "".join(f"{name}: {value}\r\n" for name, value in _SECURITY.items()).encode()
_FORM_PIECE_BYTES = 1024 * 1024
_HOSTS_MAX = 1024
# A name is at most 253 bytes (RFC 1035), and what anybody sends is kept.
_HOST_BYTES_MAX = 300


class _Refused(Exception):
    """An answer that ends a request at the edge."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.headers = headers


class Edge:
    """Wraps the application; `body_bytes_max` bounds what is read of any request body."""

    def __init__(
        self,
        app: ASGIApp,
        lanes: Sequence[Lane],
        authenticator: Authenticator,
        origins: OriginPolicy,
        *,
        body_bytes_max: int,
    ) -> None:
        self._app = app
        self._lanes = lanes
        self._authenticator = authenticator
        self._origins = origins
        # A client sends one Host, many times; taking it apart costs as much as the rest of the checks.
        self._allows_host = lru_cache(_HOSTS_MAX)(lambda host: origins.allows_host(host.decode("latin-1")))
        self._body_bytes_max = body_bytes_max
        # Request ids name an answer, they open nothing: unlike those of any other run is enough.
        self._run = secrets.token_hex(4)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _first_of_each(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = self._request_id(headers)
        state["started"] = time.perf_counter()
        state["authenticator"] = self._authenticator
        refusal = None
        try:
            state["principal"] = self._admitted(scope, headers)
        except _Refused as error:
            refusal = problem(error.status, error.code, str(error), request_id, headers=error.headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if scope["type"] == "websocket":
                await self._websocket(refusal, scope, receive, send)
            else:
                await self._http(refusal, scope, receive, send)

    def at_once(self, scope: Scope, body: bytes) -> Whole | Coroutine[Any, Any, Whole] | None:
        """For the server's protocol: the answer of a lane, None for whatever `__call__` is to look at."""
        for lane in self._lanes:
            if lane.takes(scope):
                break
        else:
            return None
        started_s = time.perf_counter()
        headers = _first_of_each(scope["headers"])
        try:
            principal = self._admitted(scope, headers)
        except _Refused:
            return None
        if principal is None:
            return None
        request_id = self._request_id(headers)
        found = lane.answer(Asked(scope, headers, body, principal, request_id, started_s))
        if found is None:
            return None
        if not isinstance(found, Whole):
            return _awaited(found, scope, request_id, started_s)
        return _hardened(found, scope, request_id, started_s)

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._run}{next(self._numbers):08x}"

    def _admitted(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal | None:
        """Who asks, None where nobody need be known. Raises `_Refused`."""
        host = headers.get(b"host", b"")
        if len(host) > _HOST_BYTES_MAX or not self._allows_host(host):
            detail = "this host name is not served here; an operator allows it with SKILLWIRE_ALLOWED_HOSTS"
            raise _Refused(421, "foreign_host", detail)
        origin = headers.get(b"origin")
        if origin is not None and not self._origins.allows_origin(origin.decode("latin-1"), host.decode("latin-1")):
            raise _Refused(403, "foreign_origin", "pages of another origin may not call this service")
        length = headers.get(b"content-length")
        # Python refuses to read thousands of digits; llhttp refuses what is over 64 bits, and lets zeros pass.
        if length is not None and length.isdigit() and int(length.lstrip(b"0") or b"0") > self._body_bytes_max:
            error = _too_large(self._body_bytes_max)
            raise _Refused(413, error.code, error.message)
        path = scope["path"]
        principal = self._principal(path, headers, scope)
        if principal is None and _OPEN.fullmatch(path) is None:
            detail = "send `Authorization: Bearer <key>`"
            raise _Refused(401, "unauthenticated", detail, {"www-authenticate": "Bearer"})
        return principal

    def _principal(self, path: str, headers: dict[bytes, bytes], scope: Scope) -> Principal | None:
        principal = self._authenticator.from_header(headers.get(b"authorization", b""))
        if principal is None and path in _TICKETED:
            principal = self._authenticator.from_ticket(dict(parse_qsl(scope["query_string"].decode("latin-1"))))
        return principal

    async def _http(self, refusal: Response | None, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope["state"]["request_id"]
        status = 0

        async def send_hardened(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await (refusal or self._app)(scope, _bounded(scope, receive, self._body_bytes_max), send_hardened)
        except Exception as error:
            if not status:
                await http_answer(error, request_id)(scope, receive, send_hardened)
            elif scope["state"].get("answered") is not error:
                log.exception("a request failed after its answer had begun", path=scope["path"])
        finally:
            _count(scope, request_id, status, scope["state"]["started"])

    async def _websocket(self, refusal: Response | None, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal is None:
            await self._app(scope, receive, send)
            return
        if refusal.status_code != 401:
            await refusal(scope, receive, send)  # as the handshake's HTTP answer
            return
        # A browser cannot read the answer to a refused handshake and would try again for ever.
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": UNAUTHENTICATED.code, "reason": UNAUTHENTICATED.reason})


async def _awaited(work: Coroutine[Any, Any, Whole], scope: Scope, request_id: str, started_s: float) -> Whole:
    structlog.contextvars.bind_contextvars(request_id=request_id)  # of this task alone
    try:
        whole = await work
    except Exception as error:  # noqa: BLE001  # the end of a request, which `http_answer` logs
        answer = http_answer(error, request_id)
        whole = Whole(
            answer.status_code, b"".join(b"%b: %b\r\n" % each for each in answer.raw_headers), bytes(answer.body)
        )
    except BaseException:
        _count(scope, request_id, 0, started_s)
        raise
    return _hardened(whole, scope, request_id, started_s)


def _hardened(whole: Whole, scope: Scope, request_id: str, started_s: float) -> Whole:
    _count(scope, request_id, whole.status, started_s)
    head = b"%bx-request-id: %b\r\n%b" % (whole.head, request_id.encode(), _SECURITY_LINES)
    return Whole(whole.status, head, whole.body)


def _bounded(scope: Scope, receive: Receive, bytes_max: int) -> Receive:
    """For bodies without a Content-Length, and for archives of far too many entries."""
    seen = 0
    is_form = any(name == b"content-type" and value.startswith(b"multipart/") for name, value in scope["headers"])
    entries = EntryCount() if is_form else None

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            seen += len(body)
            if seen > bytes_max:
                raise _too_large(bytes_max)
            if entries is not None:
                entries.take(body)
        return message

    return _gathering(receive_bounded) if is_form else receive_bounded


def _gathering(receive: Receive) -> Receive:
    """Forms are read in pieces of a megabyte: the parser goes to a thread and back for every one it is given."""

    async def receive_gathered() -> Message:
        message = await receive()
        parts: list[bytes] = [message.get("body", b"")]
        missing = _FORM_PIECE_BYTES - len(parts[0])
        while message.get("more_body") and missing > 0:
            message = await receive()
            parts.append(message.get("body", b""))
            missing -= len(parts[-1])
        return {**message, "body": b"".join(parts)} if len(parts) > 1 else message

    return receive_gathered


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"the body is over {bytes_max} bytes")


def _first_of_each(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Of a header that came twice the first counts, as `starlette.datastructures.Headers` has it."""
    return dict(reversed([*headers]))


def _count(scope: Scope, request_id: str, status: int, started_s: float) -> None:
    duration_s = time.perf_counter() - started_s
    metrics.answers.count(status, duration_s)
    if _level.isEnabledFor(logging.DEBUG):
        log.debug(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            duration_ms=round(duration_s * 1000, 2),
            request_id=request_id,
        )
