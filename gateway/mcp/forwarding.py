"""Sessions of the eras before 2026-07-28, which live in one replica, for clients that meet any of them.

A session's id names its replica: `<replica>-<the SDK's id>`. A request for a session of another one
is handed on to it and its answer, a stream perhaps, handed back. To the client a replica that is gone
is a session that is not found: it begins anew, as the protocol has it.

A request that was handed on once is answered where it arrived, whatever it says: there are no loops.
The only addresses that are called are those that replicas of this deployment announced (`Presence`).
"""

import asyncio
import re
from collections.abc import Sequence

import httpx2
import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.peers import PROOF_HEADER, SCHEME, Claim, Peers
from services import metrics
from services.presence import Presence

CONNECT_S = 2.0
_SESSION = b"mcp-session-id"
_AUTHORIZATION = b"authorization"
# Of one connection, or of the way here: the next one has its own.
_OWN = frozenset(
    (
        b"authorization",
        b"connection",
        b"content-length",
        b"date",
        b"keep-alive",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
_REPLICA = re.compile("[0-9a-f]{8}")
_GONE = Response(
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}',
    404,
    media_type="application/json",
)

log = structlog.get_logger(__name__)


class _Left(Exception):
    """The client has gone."""


class Stranger(Exception):
    """What answers at the address is not the replica that announced it."""


class SessionForwarding:
    """Around the SDK's application; `close` ends what is handed on."""

    def __init__(self, app: ASGIApp, presence: Presence, peers: Peers) -> None:
        self._app = app
        self._presence = presence
        self._peers = peers
        self._made: httpx2.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        if self._made is not None:
            await self._made.aclose()

    async def _client(self) -> "httpx2.AsyncClient":
        """Made when the first request is handed on: most replicas never do, and what it imports and the
        certificates it reads are a tenth of a start."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(_new_client)
        return self._made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = _header(scope, _SESSION)
        replica, _, own_id = session.partition("-")
        claim = self._claim(scope)
        if claim is not None and (claim.session != session or replica != self._peers.me):
            await _GONE(scope, receive, send)
        elif not session or replica == self._peers.me:
            await self._here(own_id, claim, scope, receive, send)
        else:
            await self._elsewhere(replica, session, scope, receive, send)

    def _claim(self, scope: Scope) -> Claim | None:
        """Who was not handed on has none; a false one was refused before (`Authenticator`)."""
        authorization = _header(scope, _AUTHORIZATION)
        return self._peers.read(authorization) if authorization.lower().startswith(f"{SCHEME} ") else None

    async def _here(self, own_id: str, claim: Claim | None, scope: Scope, receive: Receive, send: Send) -> None:
        """The SDK knows the sessions by its own ids."""
        if own_id:
            scope = {**scope, "headers": [*_without(scope["headers"], _SESSION), (_SESSION, own_id.encode())]}

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (name, f"{self._peers.me}-".encode() + value if name.lower() == _SESSION else value)
                    for name, value in message.get("headers", ())
                ]
                if claim is not None:
                    headers.append((PROOF_HEADER.encode(), self._peers.proof(claim).encode()))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_named)

    async def _elsewhere(self, replica: str, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        address = await self._presence.address_of(replica) if _REPLICA.fullmatch(replica) else None
        if address is None:
            metrics.mcp_forwarded.labels("gone").inc()
            await _GONE(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            return
        claim = self._peers.claim(replica, session, scope["state"]["principal"])
        headers = [(name, value) for name, value in scope["headers"] if name not in _OWN]
        headers.append((_AUTHORIZATION, self._peers.sealed(claim).encode()))
        client = await self._client()
        request = client.build_request(scope["method"], f"{address}{scope['path']}", headers=headers, content=body)
        relay = _Relay(send)
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(receive))
                await self._relay(client, request, claim, relay)
                watching.cancel()
        except* _Left:
            metrics.mcp_forwarded.labels("left").inc()
        except* (httpx2.TransportError, Stranger) as errors:
            log.warning("a session's replica cannot be reached", replica=replica, error=repr(errors.exceptions[0]))
            metrics.mcp_forwarded.labels("gone").inc()
            if relay.has_begun:
                raise  # the client sees its stream cut off, and comes back
            await _GONE(scope, receive, send)
        else:
            metrics.mcp_forwarded.labels("relayed").inc()

    async def _relay(
        self, client: "httpx2.AsyncClient", request: "httpx2.Request", claim: Claim, relay: "_Relay"
    ) -> None:
        answer = await client.send(request, stream=True)
        try:
            if not self._peers.is_proved(claim, answer.headers.get(PROOF_HEADER, "")):
                raise Stranger(f"{request.url} answered without a proof")
            headers = [
                (name.lower(), value)
                for name, value in answer.headers.raw
                if name.lower() not in _OWN and name.lower() != PROOF_HEADER.encode()
            ]
            await relay.begin(answer.status_code, headers)
            async for part in answer.aiter_raw():
                await relay.go_on(part)
            await relay.end()
        finally:
            await answer.aclose()


class _Relay:
    """What has been sent to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def go_on(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _new_client() -> "httpx2.AsyncClient":
    # Streams stay open for as long as their clients, and each has a connection.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    timeout = httpx2.Timeout(None, connect=CONNECT_S)
    return httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False, follow_redirects=False)


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _without(headers: Sequence[tuple[bytes, bytes]], unwanted: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name != unwanted]


async def _body(receive: Receive) -> bytes | None:
    """The whole body, which the edge bounds; None when the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _watch(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _Left
