"""The hot lane: reads that L1 can answer now, answered before the router and without a coroutine.

An operation that can be answered so has a `peek`. Everything unusual -- a query, a level other
than bounded, a record that must be looked at, an unknown skill -- is left to the operation's
route, which answers the same. The router and FastAPI's own work cost more than all the rest of
such a read (`tests/bench/test_cache_rest.py`).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from starlette.types import Scope

from gateway.envelope import Dressed, dressed
from gateway.operations.table import Operation, Peek
from gateway.principal import Principal
from gateway.replica import Replica
from gateway.routes.rest import PREFIX
from services import metrics

_PARAMETER = re.compile(r"{(\w+)}")


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

    def answer(
        self, scope: Scope, headers: dict[bytes, bytes], principal: Principal, request_id: str, started_s: float
    ) -> Dressed | None:
        """The whole answer, or None when the route must give it."""
        if scope["method"] != "GET" or scope["query_string"] or b"x-consistency" in headers:
            return None
        path = scope["path"]
        for way in self._ways:
            found = way.path.fullmatch(path)
            if found is None or way.scope not in principal.scopes:
                continue
            answer = way.peek(self._replica, principal, found.groupdict())
            if answer is None:
                return None
            metrics.lane_answers.inc()
            if_none_match = headers.get(b"if-none-match", b"").decode("latin-1")
            return dressed(answer, request_id, started_s, reading=True, if_none_match=if_none_match)
        return None
