"""Around the SDK's application: a session is its owner's, and speaks the version that it negotiated.

The SDK lets nobody use a session but who began it, if it is told who asks. And it goes by the version that
each request names, or by the oldest where none does: a client that names another than it negotiated was not
told where to come back to, though it can read that.
"""

import re

from cachetools import LRUCache
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.mcp.plain import Headers

# A session that has gone from here is answered by what its requests name.
SESSIONS_MAX = 10_000
_SESSION = b"mcp-session-id"
_VERSION = b"mcp-protocol-version"
_REPLACED = frozenset((b"", *(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)))
_NEGOTIATED = re.compile(rb'"protocolVersion":\s*"([0-9-]{10})"')


class Owned:
    """An ASGI application; requests come with their principal in the scope's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._versions: LRUCache[bytes, bytes] = LRUCache(SESSIONS_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = AccessToken(token="", client_id=scope["state"]["principal"].id, scopes=[])
        headers: Headers = scope["headers"]
        given = dict(headers)
        # What is no version, or a later one, is left to the SDK.
        if given.get(_VERSION, b"") in _REPLACED:
            if _SESSION not in given:
                send = self._noting(send)
            elif (version := self._versions.get(given[_SESSION])) is not None:
                headers = [*(each for each in headers if each[0] != _VERSION), (_VERSION, version)]
        await self._app({**scope, "headers": headers, "user": AuthenticatedUser(token)}, receive, send)

    def _noting(self, send: Send) -> Send:
        """Notes what a session that begins has negotiated, before its client can know the session's id."""
        session: bytes | None = None

        async def noting(message: Message) -> None:
            nonlocal session
            if message["type"] == "http.response.start":
                session = dict(message["headers"]).get(_SESSION)
            elif session is not None and (found := _NEGOTIATED.search(message.get("body", b""))):
                self._versions[session], session = found[1], None
            await send(message)

        return noting
