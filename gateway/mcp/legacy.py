"""The one place that reaches into the SDK: where a legacy session can be told of a change.

Clients of 2025-11-25 and before are told by `notifications/*/list_changed` on their session's
own channel, at any time. `mcp` 2.3 has no public way to send one outside a request, so the
connection is taken from the session's private attribute when the client says it is ready.
`is_supported` is checked at start; without it legacy clients are not promised the notice.
"""

import asyncio
import weakref

import structlog
from mcp.server.connection import Connection
from mcp.server.session import ServerSession

from services import metrics

SEND_S = 1.0

log = structlog.get_logger(__name__)


def is_supported() -> bool:
    """True when this version of the SDK keeps what is needed where it is looked for."""
    return "_connection" in ServerSession.__init__.__code__.co_names and all(
        hasattr(Connection, name) for name in ("send_tool_list_changed", "send_resource_list_changed")
    )


class LegacySessions:
    """Sessions that have said `notifications/initialized`; a session that ends is forgotten."""

    def __init__(self) -> None:
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, session: ServerSession) -> None:
        self._connections.add(session._connection)

    async def send(self, *, tools: bool, resources: bool) -> None:
        """Tells all of them at once; one that does not take it in `SEND_S` is forgotten."""
        async with asyncio.TaskGroup() as group:
            for connection in list(self._connections):
                group.create_task(self._send(connection, tools, resources))

    async def _send(self, connection: Connection, tools: bool, resources: bool) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                if tools:
                    await connection.send_tool_list_changed()
                if resources:
                    await connection.send_resource_list_changed()
        except Exception:
            self._connections.discard(connection)
            metrics.notice_failures.labels("mcp-legacy").inc()
            log.exception("a legacy session could not be told of a change")
