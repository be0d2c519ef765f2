import pytest
from mcp.server.streamable_http import GET_STREAM_KEY, EventMessage
from mcp_types import JSONRPCMessage, JSONRPCNotification, JSONRPCResponse

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


async def test_no_more_is_kept_than_the_bound_in_bytes_and_what_is_older_goes_first() -> None:
    events = RecentEvents(bytes_max=1000)
    first = await events.store_event("1", message("a"))
    second = await events.store_event("1", message("b" * 400))
    await events.store_event("1", message("c" * 400))
    assert await replayed(events, first) == ("1", ["b" * 400, "c" * 400])
    await events.store_event("1", message("d" * 400))
    assert await replayed(events, first) == (None, [])
    assert await replayed(events, second) == (None, [])
    await events.store_event("1", message("e"))
    last = await events.store_event("2", message("f" * 2000))
    assert await replayed(events, last) == (None, []), "what is over the bound alone is not kept either"
    again = await events.store_event("1", None)
    await events.store_event("1", message("g" * 900))
    assert await replayed(events, again) == ("1", ["g" * 900])


async def test_what_is_sent_again_is_what_was_sent() -> None:
    events = RecentEvents()
    sent: list[JSONRPCMessage] = [
        JSONRPCResponse(jsonrpc="2.0", id="7", result={"text": "\u00fc\U0001f600", "none": None, "list": [1, 0.5]}),
        JSONRPCNotification(jsonrpc="2.0", method="notifications/x", params={"uri": "a"}),
        JSONRPCNotification(jsonrpc="2.0", method="notifications/y"),
    ]
    first = await events.store_event("7", None)
    for each in sent:
        await events.store_event("7", each)
    seen: list[JSONRPCMessage] = []

    async def take(event: EventMessage) -> None:
        seen.append(event.message)

    assert await events.replay_events_after(first, take) == "7"
    dumps = [[each.model_dump_json(by_alias=True, exclude_unset=True) for each in some] for some in (seen, sent)]
    assert dumps[0] == dumps[1]


async def test_a_client_whose_place_among_the_changes_has_gone_is_told_that_everything_may_have_changed() -> None:
    events = RecentEvents(events_max=4)
    first = await events.store_event(GET_STREAM_KEY, message("a"))
    for text in "bcde":
        newest = await events.store_event(GET_STREAM_KEY, message(text))
    everything = [f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")]
    assert await replayed(events, first) == (GET_STREAM_KEY, everything)
    assert await replayed(events, newest) == (GET_STREAM_KEY, everything), "it was told of them, and has a place again"
