"""Whether connections can be handed over is found out at start, without a socket."""

import asyncio

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from notifier.metrics import raw_push
from notifier.probe import probe
from notifier.raw import RawHttpProtocol

pytestmark = pytest.mark.anyio


def told() -> float:
    [family] = raw_push.collect()
    return family.samples[0].value


async def test_the_installed_uvicorn_hands_connections_over() -> None:
    assert await probe()
    assert told() == 1


async def test_one_that_names_its_parts_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WebSocketsSansIOProtocol, "handle_connect")

    assert not await probe()
    assert told() == 0


async def test_one_that_closes_what_it_handed_over_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_asgi(self: WebSocketsSansIOProtocol) -> None:
        await self.app(self.scope, self.receive, self.send)
        self.transport.close()

    monkeypatch.setattr(WebSocketsSansIOProtocol, "run_asgi", run_asgi)

    assert not await probe()


async def test_one_whose_responses_are_not_chunked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = asyncio.Event()

    def take_over(*_: object) -> bool:
        taken.set()
        return False

    monkeypatch.setattr(RawHttpProtocol, "take_over", take_over)

    assert not await probe()
    assert taken.is_set()
