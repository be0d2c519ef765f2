"""Push: one log and the live states, fanned out over WebSocket and SSE."""

from notifier.close_codes import CLOSE_CODES, CloseCode, reconnects
from notifier.events import Cursor, Event, Frame, LogRow, Reset, State, StateEvent, Viewer
from notifier.history import HistoryReader
from notifier.join import Recovery
from notifier.notifier import UnifiedNotifier
from notifier.rpc import RpcCall, RpcError, RpcRegistry
from notifier.sse import sse_response
from notifier.subscription import Subscription, SubscriptionEnded
from notifier.topics import LOG_TOPICS, STATE_TOPICS, UnknownTopic, checked_topics
from notifier.websocket import serve_websocket

__all__ = [
    "CLOSE_CODES",
    "LOG_TOPICS",
    "STATE_TOPICS",
    "CloseCode",
    "Cursor",
    "Event",
    "Frame",
    "HistoryReader",
    "LogRow",
    "Recovery",
    "Reset",
    "RpcCall",
    "RpcError",
    "RpcRegistry",
    "State",
    "StateEvent",
    "Subscription",
    "SubscriptionEnded",
    "UnifiedNotifier",
    "UnknownTopic",
    "Viewer",
    "checked_topics",
    "reconnects",
    "serve_websocket",
    "sse_response",
]
