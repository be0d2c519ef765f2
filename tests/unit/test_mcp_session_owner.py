"""A session of before 2026-07-28, over the SDK's own application: only who began it can use it."""

from typing import Any

import httpx2
import pytest
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.mcp.sdk.owned import Owned
from gateway.principal import ALL_SCOPES, Principal
from notifier.events import Viewer

pytestmark = pytest.mark.anyio
BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "0"},
    },
}
PING = {"jsonrpc": "2.0", "id": 2, "method": "ping"}


def as_principal(app: ASGIApp, name: str) -> httpx2.AsyncClient:
    """A client whose requests come to `app` as the edge passes them on."""

    async def edge(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"principal": Principal(name, ALL_SCOPES, Viewer(owners=None))}}, receive, send)

    return httpx2.AsyncClient(transport=httpx2.ASGITransport(edge), base_url="http://127.0.0.1")


async def test_nobody_else_can_use_or_end_a_session() -> None:
    server: Server[Any] = Server("sessions")
    manager = StreamableHTTPSessionManager(server, json_response=True)
    headers = {"accept": "application/json, text/event-stream"}
    async with manager.run():
        app = Owned(StreamableHTTPASGIApp(manager))
        async with as_principal(app, "one") as one, as_principal(app, "other") as other:
            begun = await one.post("/mcp", json=BEGIN, headers=headers)
            session = {**headers, "mcp-session-id": begun.headers["mcp-session-id"]}
            assert (await other.post("/mcp", json=PING, headers=session)).status_code == 404
            assert (await other.delete("/mcp", headers=session)).status_code == 404
            assert (await one.post("/mcp", json=PING, headers=session)).status_code == 200
