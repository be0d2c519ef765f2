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

from gateway.mcp import uris
from gateway.mcp.notices import Notices
from notifier.events import Viewer
from services import metrics

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
        self._watched: weakref.WeakKeyDictionary[Connection, dict[str, str]] = weakref.WeakKeyDictionary()
        # What a session has still to be told, each thing once, and the one task that tells it.
        self._due: weakref.WeakKeyDictionary[Connection, dict[str, None]] = weakref.WeakKeyDictionary()
        self._telling: dict[Connection, asyncio.Task[None]] = {}

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
        watched = self._watched.setdefault(session._connection, {})
        if uri not in watched and len(watched) >= WATCHED_MAX:
            return False
        watched[uri] = uris.watched(uri)
        return True

    def unwatch(self, session: ServerSession, uri: str) -> None:
        self._watched.get(session._connection, {}).pop(uri, None)

    def send(self, notices: Notices) -> None:
        """Waits for nobody: a session that does not read is told each thing once, when it reads again."""
        for connection, viewer in list(self._connections.items()):
            seen = notices.seen_by(viewer)
            watched = self._watched.get(connection, {})
            updated = [uri for uri, what in watched.items() if what in seen.updated]
            due = self._due.setdefault(connection, {})
            due.update(dict.fromkeys((*seen.lists, *updated)))
            if due and connection not in self._telling:
                self._telling[connection] = asyncio.create_task(self._tell(connection, due), name="mcp-legacy")

    async def close(self) -> None:
        telling = list(self._telling.values())
        for task in telling:
            task.cancel()
        if telling:
            await asyncio.wait(telling)

    async def _tell(self, connection: Connection, due: dict[str, None]) -> None:
        lists = {
            "tools": connection.send_tool_list_changed,
            "prompts": connection.send_prompt_list_changed,
            "resources": connection.send_resource_list_changed,
        }
        try:
            while due:
                what = next(iter(due))
                del due[what]  # before it is sent: what changes meanwhile is told again
                await (lists[what]() if what in lists else connection.send_resource_updated(what))
        except Exception:
            self._connections.pop(connection, None)
            metrics.notice_failures.labels("mcp-legacy").inc()
            log.exception("a legacy session could not be told of a change")
        finally:
            del self._telling[connection]
