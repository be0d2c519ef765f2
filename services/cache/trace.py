"""Following one key through the tiers, for whoever wants to see why an answer is what it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
import structlog

from services import metrics
from services.clock import utc_now
from services.failures import Exhausted

TRACES_MAX = 64

TraceKind = Literal[
    "l1_hit", "l1_refused", "l1_miss", "l2_hit", "l2_miss", "l2_refused", "load_started", "load_finished",
    "load_failed", "stored", "evicted", "invalidated", "stale_served", "refresh_started", "joined",
]  # fmt: skip
log = structlog.get_logger(__name__)


class TraceEvent(msgspec.Struct, frozen=True):
    """What happened to `key`; `facts` are JSON values such as `asof`, `deps` and `ms`."""

    kind: TraceKind
    key: str
    at: str
    facts: dict[str, Any] = {}


Watcher = Callable[[TraceEvent], None]


class Traces:
    """The keys that are being followed; `emit` costs one lookup for all others."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[Watcher]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._watchers

    @contextmanager
    def follow(self, key: str, callback: Watcher) -> Iterator[None]:
        """Calls `callback` inside the read, so it must not take long. Raises `Exhausted` beyond `TRACES_MAX`."""
        if sum(map(len, self._watchers.values())) >= TRACES_MAX:
            raise Exhausted("too many keys are being traced")
        watchers = self._watchers.setdefault(key, [])
        watchers.append(callback)
        try:
            yield
        finally:
            watchers.remove(callback)
            if not watchers:
                del self._watchers[key]

    def emit(self, key: str, kind: TraceKind, **facts: object) -> None:
        for watcher in tuple(self._watchers.get(key, ())):
            try:
                watcher(TraceEvent(kind, key, utc_now(), facts))
            except Exception:
                # Who looks on must not be able to break what is looked at.
                metrics.notice_failures.labels("trace").inc()
                log.exception("a trace could not be told", key=key)
