"""What a lane takes on is answered by the edge, however it ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from starlette.types import Receive, Scope, Send

from gateway.auth import Authenticator
from gateway.edge import Edge
from gateway.lane import Asked
from gateway.origin import OriginPolicy
from notifier.raw import Whole
from services import metrics
from services.failures import NotFound
from services.settings import Settings

pytestmark = pytest.mark.anyio

SCOPE: Scope = {
    "type": "http",
    "method": "GET",
    "path": "/work",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1"), (b"x-request-id", b"mine-1")],
}


class WorkLane:
    """Takes everything on."""

    def __init__(self, ends_with: BaseException | None = None) -> None:
        self._ends_with = ends_with

    def takes(self, _: Scope) -> bool:
        return True

    def answer(self, asked: Asked) -> Coroutine[Any, Any, Whole]:
        return self._work(asked.principal.id)

    async def _work(self, who: str) -> Whole:
        await asyncio.sleep(0)
        if self._ends_with is not None:
            raise self._ends_with
        return Whole(200, b"content-length: 5\r\n", who.encode())


async def nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError("the application saw it")


def working(lane: WorkLane) -> Coroutine[Any, Any, Whole]:
    settings = Settings()
    edge = Edge(nowhere, (lane,), Authenticator(settings), OriginPolicy(settings), body_bytes_max=1000)
    work = edge.at_once(SCOPE, b"")
    assert asyncio.iscoroutine(work)
    return work


def answers(status_class: str) -> float:
    [requests, *_] = metrics.answers.collect()
    return next(each.value for each in requests.samples if each.labels == {"status_class": status_class})


async def test_work_is_answered_with_what_every_answer_has() -> None:
    before = answers("2xx")
    whole = await working(WorkLane())
    assert (whole.status, whole.body) == (200, b"local")
    assert b"x-request-id: mine-1\r\n" in whole.head
    assert b"x-frame-options: DENY\r\n" in whole.head
    assert answers("2xx") == before + 1


@pytest.mark.parametrize(
    ("error", "status", "code"), [(NotFound("not here"), 404, "not_found"), (RuntimeError("odd"), 500, "internal")]
)
async def test_work_that_fails_is_answered_as_any_failure(error: Exception, status: int, code: str) -> None:
    whole = await working(WorkLane(error))
    told = msgspec.json.decode(whole.body)
    assert (whole.status, told["code"], told["request_id"]) == (status, code, "mine-1")
    assert b"content-type: application/problem+json\r\n" in whole.head
    assert b"x-frame-options: DENY\r\n" in whole.head


async def test_work_that_is_cancelled_counts_as_not_answered() -> None:
    before = answers("0xx")
    with pytest.raises(asyncio.CancelledError):
        await working(WorkLane(asyncio.CancelledError()))
    assert answers("0xx") == before + 1
