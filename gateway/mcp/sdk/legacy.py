"""The one place that reaches into the SDK: where a legacy session can be told of a change.

Clients of 2025-11-25 and before are told by `notifications/*/list_changed` on their session's
own channel, at any time. `mcp` 2.3 has no public way to send one outside a request, so the
connection is taken from the session's private attribute when the client says it is ready.
`is_supported` is checked at start; without it legacy clients are not promised the notice.
"""

import asyncio
import weakref

import mcp_types as types
import structlog
from mcp.server.connection import Connection
from mcp.server.session import ServerSession

from gateway.mcp.notices import Notices, Seen
from notifier.events import Viewer
from services import metrics

SEND_S = 1.0
WATCHED_MAX = 1000

log = structlog.get_logger(__name__)


def is_supported() -> bool:
    """True when this version of the SDK keeps what is needed where it is looked for."""
    return "_connection" in ServerSession.__init__.__code__.co_names and all(
        hasattr(Connection, f"send_{name}")
        for name in ("tool_list_changed", "resource_list_changed", "prompt_list_changed", "resource_updated")
    )


class LegacySessions:
    """Sessions that have said `notifications/initialized`; a session that ends is forgotten."""

    def __init__(self) -> None:
        self._connections: weakref.WeakKeyDictionary[Connection, Viewer] = weakref.WeakKeyDictionary()
        self._log_levels: weakref.WeakKeyDictionary[Connection, types.LoggingLevel] = weakref.WeakKeyDictionary()
        self._watched: weakref.WeakKeyDictionary[Connection, set[str]] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, session: ServerSession, viewer: Viewer) -> None:
        self._connections[session._connection] = viewer

    def log_level(self, session: ServerSession) -> types.LoggingLevel:
        """What the session asked for with `logging/setLevel`, or all that is no debugging."""
        return self._log_levels.get(session._connection, "info")

    def set_log_level(self, session: ServerSession, level: types.LoggingLevel) -> None:
        self._log_levels[session._connection] = level

    def watch(self, session: ServerSession, uri: str) -> bool:
        """False when the session watches `WATCHED_MAX` resources already."""
        watched = self._watched.setdefault(session._connection, set())
        if uri not in watched and len(watched) >= WATCHED_MAX:
            return False
        watched.add(uri)
        return True

    def unwatch(self, session: ServerSession, uri: str) -> None:
        self._watched.get(session._connection, set()).discard(uri)

    async def send(self, notices: Notices) -> None:
        """Tells all of them at once; one that does not take it in `SEND_S` is forgotten."""
        async with asyncio.TaskGroup() as group:
            for connection, viewer in list(self._connections.items()):
                group.create_task(self._send(connection, notices.seen_by(viewer)))

    async def _send(self, connection: Connection, seen: Seen) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                if "tools" in seen.lists:
                    await connection.send_tool_list_changed()
                if "prompts" in seen.lists:
                    await connection.send_prompt_list_changed()
                if "resources" in seen.lists:
                    await connection.send_resource_list_changed()
                for uri in seen.updated & self._watched.get(connection, set()):
                    await connection.send_resource_updated(uri)
        except Exception:
            self._connections.pop(connection, None)
            metrics.notice_failures.labels("mcp-legacy").inc()
            log.exception("a legacy session could not be told of a change")
