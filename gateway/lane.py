"""Lanes: requests answered as soon as they are read, before the router and without a task.

The hot lane gives reads that L1 can answer now. An operation that can be answered so has a `peek`.
Everything unusual -- a query, a level other than bounded, a record that must be looked at, an
unknown skill -- is left to the operation's route, which answers the same. The router and FastAPI's
own work cost more than all the rest of such a read (`tests/bench/test_cache_rest.py`).
"""

import re
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from starlette.types import Scope

from gateway.envelope import whole
from gateway.operations.table import Operation, Peek
from gateway.principal import Principal
from gateway.replica import Replica
from gateway.routes.rest import PREFIX
from notifier.raw import Whole
from services import metrics

# Taking a path apart costs as much as what is then looked up.
_PATHS_MAX = 4096
_PATH_MAX = 256
_PARAMETER = re.compile(r"{(\w+)}")


class Asked(NamedTuple):
    """A whole request that has passed the edge; of a header that came twice, `headers` has the first.
    `started_s` is a `time.perf_counter` of when it had been read."""

    scope: Scope
    headers: dict[bytes, bytes]
    body: bytes
    principal: Principal
    request_id: str
    started_s: float


class Lane(Protocol):
    """What is answered must be what the route would."""

    def takes(self, scope: Scope) -> bool:
        """Whether such a request may be answered here; asked first, of every request."""
        ...

    def answer(self, asked: Asked) -> Whole | Coroutine[Any, Any, Whole] | None:
        """None when the route must answer. A coroutine has taken the request on: what it raises is its answer."""
        ...


class _Way(NamedTuple):
    path: re.Pattern[str]
    scope: str
    peek: Peek


class HotLane:
    """Made of the operations that can be peeked at."""

    def __init__(self, replica: Replica, operations: Iterable[Operation]) -> None:
        self._replica = replica
        self._ways = tuple(
            _Way(re.compile(PREFIX + _PARAMETER.sub(r"(?P<\1>[^/]+)", path)), operation.scope, operation.peek)
            for operation in operations
            if operation.peek is not None and operation.http is not None
            for _, path in [operation.http]
        )
        self._way = lru_cache(_PATHS_MAX)(self._found)

    def takes(self, scope: Scope) -> bool:
        return scope["method"] == "GET" and not scope["query_string"] and scope["path"].startswith(PREFIX)

    def answer(self, asked: Asked) -> Whole | None:
        path = asked.scope["path"]
        found = self._way(path) if len(path) <= _PATH_MAX else None
        if found is None or b"x-consistency" in asked.headers:
            return None
        way, values = found
        if way.scope not in asked.principal.scopes:
            return None
        peeked = way.peek(self._replica, asked.principal, values)
        if peeked is None:
            return None
        metrics.answers.from_lane += 1
        if_none_match = asked.headers.get(b"if-none-match", b"").decode("latin-1")
        return whole(*peeked, asked.request_id, asked.started_s, if_none_match)

    def _found(self, path: str) -> tuple[_Way, dict[str, str]] | None:
        for way in self._ways:
            match = way.path.fullmatch(path)
            if match is not None:
                return way, match.groupdict()
        return None
