import asyncio

import httpx2
import msgspec
import pytest

from tests.support.notifier_log import announce
from tests.support.notifier_server import RpcClient, pushing, sse

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("raw", [True, False], ids=["raw", "asgi"])]


async def test_stream_says_hello_and_sends_events_with_their_ids(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        announce(push.log, push.notifier)
        async with sse(push.port, "skills,stats") as stream:
            assert stream.response.headers["cache-control"] == "no-store, no-transform"
            assert stream.response.headers["x-accel-buffering"] == "no"
            hello = await stream.next()
            assert (hello.event, hello.id) == ("hello", push.log.rows[0].id)
            assert msgspec.json.decode(hello.data) == {"position": push.log.rows[0].id, "recovered": False}
            assert int(hello.retry) >= 250

            announce(push.log, push.notifier)
            event = await stream.next()
            assert (event.event, event.id) == ("", push.log.rows[1].id)
            assert msgspec.json.decode(event.data)["data"] == {"n": 2}

            push.notifier.publish_state("stats", "cpu", "stats.updated", b"7")
            state = await stream.next()
            assert (state.event, state.id, msgspec.json.decode(state.data)["data"]) == ("", "", 7)


async def test_client_hops_between_transports_with_one_position_and_misses_nothing(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        received: list[object] = []
        async with push.connect() as connection:
            client = RpcClient(connection)
            await client.call("subscribe", topics=["skills"])
            announce(push.log, push.notifier, 3)
            for _ in range(2):  # the third is lost with the connection
                params = (await client.next_event())["params"]
                assert isinstance(params, dict)
                received.append(params["id"])
        announce(push.log, push.notifier, 2)
        async with sse(push.port, "skills", since=str(received[-1])) as stream:
            hello = await stream.next()
            assert msgspec.json.decode(hello.data)["recovered"] is True
            assert hello.id == ""
            received += [(await stream.next_data())["id"] for _ in range(3)]
        announce(push.log, push.notifier, 2)
        async with push.connect() as connection:
            client = RpcClient(connection)
            answer = await client.call("subscribe", topics=["skills"], since=received[-1])
            assert answer["result"] == {"position": push.notifier.position, "recovered": True, "replayed": 2}
            for _ in range(2):
                params = (await client.next_event())["params"]
                assert isinstance(params, dict)
                received.append(params["id"])
        assert received == [row.id for row in push.log.rows]


async def test_shutdown_says_bye_and_ends_the_stream_cleanly(raw: bool) -> None:
    """F13 of research/reliability.md: sse-starlette alone cuts the response in the middle of a chunk."""
    async with pushing(raw=raw) as push, sse(push.port, "skills") as stream:
        await stream.next()
        push.server.handle_exit(2, None)  # what uvicorn does on a signal; sse-starlette has hooked into it
        push.server._captured_signals.clear()  # or uvicorn raises it again at its end, in the test's process
        await push.notifier.close()
        bye = await stream.next()
        assert (bye.event, msgspec.json.decode(bye.data)) == ("bye", {"reason": "shutdown"})
        assert int(bye.retry) >= 250
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_exit_of_the_server_alone_does_not_cut_the_stream(raw: bool) -> None:
    async with pushing(raw=raw) as push, sse(push.port, "skills") as stream:
        await stream.next()
        push.server.handle_exit(2, None)
        push.server._captured_signals.clear()
        # sse-starlette polls every half second; a cut within twice that would show as an error or an end.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.1):
                await stream.next()


async def test_unknown_position_is_reset_to_one_that_works(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        announce(push.log, push.notifier)
        async with sse(push.port, "skills", since="e0-1-00000000") as stream:
            hello = await stream.next()
            assert msgspec.json.decode(hello.data)["recovered"] is False
            reset = await stream.next()
            assert (reset.event, reset.id) == ("reset", push.log.rows[0].id)
            assert msgspec.json.decode(reset.data)["reason"] == "epoch"


async def test_idle_stream_moves_the_browsers_position_without_an_event(raw: bool) -> None:
    async with pushing(heartbeat_s=0.02, raw=raw) as push, sse(push.port, "tools") as stream:
        await stream.next()
        announce(push.log, push.notifier, topic="skills")
        async with asyncio.timeout(5):
            while (beat := await stream.next()).id != push.log.rows[0].id:
                pass
        assert beat.data == ""


async def test_store_that_fails_ends_the_stream_with_a_hint_to_come_back(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        announce(push.log, push.notifier, 100)
        push.log.failure = OSError("the database has gone")
        async with sse(push.port, "skills", since=push.log.rows[0].id) as stream:
            bye = await stream.next()
            assert (bye.event, msgspec.json.decode(bye.data)) == ("bye", {"reason": "unavailable"})
            with pytest.raises(StopAsyncIteration):
                await stream.next()


async def test_client_that_leaves_and_a_head_request_leave_nothing_behind(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        async with sse(push.port, "skills") as stream:
            await stream.next()
            assert push.notifier.presence == {"sse": 1}
        async with httpx2.AsyncClient(trust_env=False) as client:
            response = await client.head(f"http://127.0.0.1:{push.port}/events?topics=skills", timeout=5)
        assert response.status_code == 200
        async with asyncio.timeout(5):
            while push.notifier.presence:
                announce(push.log, push.notifier)
                await asyncio.sleep(0.001)


async def test_stream_is_turned_away_while_there_are_too_many(raw: bool) -> None:
    async with (
        pushing(subscribers_max=1, raw=raw) as push,
        sse(push.port, "skills") as first,
    ):
        await first.next()
        async with sse(push.port, "skills") as second:
            assert second.response.status_code == 503
            assert int(second.response.headers["retry-after"]) >= 1
