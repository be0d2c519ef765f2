import pytest
from mcp.server.streamable_http import GET_STREAM_KEY, EventMessage
from mcp_types import JSONRPCNotification

from gateway.mcp.sdk.events import RecentEvents

pytestmark = pytest.mark.anyio


def message(text: str) -> JSONRPCNotification:
    return JSONRPCNotification(jsonrpc="2.0", method=text)


async def replayed(events: RecentEvents, last: str) -> tuple[str | None, list[str]]:
    seen: list[str] = []

    async def take(event: EventMessage) -> None:
        assert isinstance(event.message, JSONRPCNotification)
        seen.append(event.message.method)

    return await events.replay_events_after(last, take), seen


async def test_a_client_that_comes_back_gets_what_its_own_stream_missed() -> None:
    events = RecentEvents()
    first = await events.store_event("1", None)
    await events.store_event("1", message("a"))
    await events.store_event("2", message("b"))
    await events.store_event("1", message("c"))
    assert await replayed(events, first) == ("1", ["a", "c"])


async def test_a_place_that_is_gone_or_was_never_given_answers_nothing() -> None:
    events = RecentEvents(events_max=2)
    first = await events.store_event("1", None)
    for text in "abc":
        await events.store_event("1", message(text))
    for last in (first, "nonsense", "", "99", "9" * 10_000):
        assert await replayed(events, last) == (None, [])


async def test_a_client_whose_place_among_the_changes_has_gone_is_told_that_everything_may_have_changed() -> None:
    events = RecentEvents(events_max=4)
    first = await events.store_event(GET_STREAM_KEY, message("a"))
    for text in "bcde":
        newest = await events.store_event(GET_STREAM_KEY, message(text))
    everything = [f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")]
    assert await replayed(events, first) == (GET_STREAM_KEY, everything)
    assert await replayed(events, newest) == (GET_STREAM_KEY, everything), "it was told of them, and has a place again"
