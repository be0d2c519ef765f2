import asyncio
import socket
from contextlib import AsyncExitStack

import msgspec
import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

from gateway.commands.live import Watch
from notifier import Event, RpcCall, Viewer
from notifier.close_codes import SHUTDOWN, SILENT, TOO_LARGE
from notifier.metrics import REGISTRY
from tests.support.notifier_log import announce
from tests.support.notifier_server import RpcClient, pushing, upgraded

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("raw", [True, False], ids=["raw", "asgi"])]


CLOSED_AS_SILENT = Frame(Opcode.CLOSE, SILENT.code.to_bytes(2) + SILENT.reason.encode()).serialize(mask=False)


async def closed(connection: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(5):
        await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


async def test_subscriber_is_answered_first_and_then_gets_events(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        client = RpcClient(connection)
        rows = announce(push.log, push.notifier, 3)
        answer = await client.call("subscribe", topics=["skills"], since=rows[0].id)
        assert answer["result"] == {"position": rows[2].id, "recovered": True, "replayed": 2}
        assert not client.events

        announce(push.log, push.notifier)
        ids = []
        for _ in range(3):
            message = await client.next_event()
            assert message["method"] == "event"
            assert isinstance(message["params"], dict)
            ids.append(message["params"]["id"])
        assert ids == [row.id for row in push.log.rows[1:]]
        assert push.notifier.presence == {"websocket": 1}
        assert (await client.call("ping"))["result"] == {"position": push.notifier.position}


async def test_unknown_topic_is_refused_and_the_known_ones_are_named(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        answer = await RpcClient(connection).call("subscribe", topics=["nope"])
        error = answer["error"]
        assert isinstance(error, dict)
        assert error["code"] == -32602
        assert "skills" in error["message"]


async def test_unsubscribed_topic_is_silent(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        client = RpcClient(connection)
        await client.call("subscribe", topics=["skills", "tools"])
        assert (await client.call("unsubscribe", topics=["skills"]))["result"] == {"topics": ["tools"]}
        announce(push.log, push.notifier, topic="skills")
        announce(push.log, push.notifier, topic="tools")

        event = await client.next_event()
        assert isinstance(event["params"], dict)
        assert event["params"]["topic"] == "tools"


async def test_unknown_position_is_answered_and_then_reset(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        client = RpcClient(connection)
        answer = await client.call("subscribe", topics=["skills"], since="nonsense")
        assert answer["result"] == {"position": push.notifier.position, "recovered": False, "replayed": 0}
        assert await client.next_event() == {
            "jsonrpc": "2.0",
            "method": "reset",
            "params": {"reason": "unknown", "position": push.notifier.position, "snapshot": "/api/v1/skills"},
        }


async def test_private_events_do_not_reach_other_viewers(raw: bool) -> None:
    async with pushing(viewer=Viewer(frozenset({"b"})), raw=raw) as push, push.connect() as connection:
        client = RpcClient(connection)
        await client.call("subscribe", topics=["skills"])
        rows = [push.log.append(owner="a", visibility="private"), push.log.append(owner="b", visibility="private")]
        push.notifier.apply(rows)

        event = await client.next_event()
        assert isinstance(event["params"], dict)
        assert event["params"]["id"] == rows[1].id


async def test_idle_connection_is_told_the_position(raw: bool) -> None:
    async with pushing(heartbeat_s=0.02, raw=raw) as push, push.connect() as connection:
        client = RpcClient(connection)
        await client.call("subscribe", topics=["tools"])
        announce(push.log, push.notifier, topic="skills")
        async with asyncio.timeout(5):
            while (beat := await client.next_event())["params"] != {"position": push.log.rows[0].id}:
                pass
        assert beat["method"] == "heartbeat"


async def test_client_that_gives_no_sign_of_life_is_told_to_come_back_and_one_that_does_stays(raw: bool) -> None:
    """The fast path pings, which a client's library answers by itself; ASGI has no pings, so a call does it."""
    async with (
        pushing(heartbeat_s=0.2, raw=raw) as push,
        push.connect() as connection,
        upgraded(push.port) as (dead, _),
    ):
        client = RpcClient(connection)
        for _ in range(6):
            assert (await client.next_event())["method"] == "heartbeat"
        async with asyncio.timeout(5):
            got = await dead.readuntil(CLOSED_AS_SILENT)
        assert (got.count(b'"heartbeat"'), got.count(b'"bye"')) == (2, 1)
        assert push.notifier.presence == {"websocket": 1}


async def test_watch_of_the_command_line_gives_signs_of_life(raw: bool) -> None:
    shown: asyncio.Queue[bytes] = asyncio.Queue()
    ended_before = REGISTRY.get_sample_value("skillwire_silent_subscribers_total")
    async with pushing(heartbeat_s=0.1, raw=raw) as push, push.connect() as connection:
        watch = Watch(f"http://127.0.0.1:{push.port}", None, ["skills"], push.log.position.id, shown.put_nowait)
        watching = asyncio.create_task(watch.run())
        announce(push.log, push.notifier)
        async with asyncio.timeout(5):
            await shown.get()
        client = RpcClient(connection)
        for _ in range(6):
            assert (await client.next_event())["method"] == "heartbeat"
        watching.cancel()
        await asyncio.wait([watching])
    assert REGISTRY.get_sample_value("skillwire_silent_subscribers_total") == ended_before


async def test_shutdown_answers_running_calls_and_closes_so_that_the_client_resumes(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        started, go_on = asyncio.Event(), asyncio.Event()

        @push.rpc.command("slow")
        async def slow(_: RpcCall) -> bytes:
            started.set()
            await go_on.wait()
            return b'"done"'

        client = RpcClient(connection)
        calling = asyncio.create_task(client.call("slow"))
        async with asyncio.timeout(5):
            await started.wait()
        closing = asyncio.create_task(push.notifier.close())
        await asyncio.sleep(0)
        go_on.set()
        assert (await calling)["result"] == "done"
        await closing
        assert not push.notifier.presence
        assert await closed(connection) == SHUTDOWN


async def test_message_above_the_bound_closes_for_good(raw: bool) -> None:
    async with pushing(raw=raw) as push, push.connect() as connection:
        await connection.send("x" * 5000)
        assert await closed(connection) == TOO_LARGE


async def test_client_is_turned_away_while_there_are_too_many(raw: bool) -> None:
    async with pushing(subscribers_max=1, raw=raw) as push, push.connect() as connection:
        await RpcClient(connection).call("ping")
        with pytest.raises(websockets.InvalidStatus) as refused:
            await push.connect()
        assert refused.value.response.status_code == 503
        assert "Retry-After" in refused.value.response.headers


async def test_client_that_vanishes_leaves_nothing_behind(raw: bool) -> None:
    async with pushing(raw=raw) as push:
        async with push.connect() as connection:
            await RpcClient(connection).call("subscribe", topics=["skills"])
            connection.transport.abort()
        async with asyncio.timeout(5):
            while push.notifier.presence:
                announce(push.log, push.notifier)
                await asyncio.sleep(0.001)
        ledger = push.notifier.ledger
        assert ledger.owed == ledger.delivered + ledger.undelivered.total()


async def test_stalled_subscriber_is_ended_and_others_receive_everything(raw: bool) -> None:
    async with pushing(stall_s=0.2, raw=raw) as push, push.connect() as connection:
        quick = RpcClient(connection)
        await quick.call("subscribe", topics=["skills"])
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(small, ("127.0.0.1", push.port))
            async with websockets.connect(
                f"ws://127.0.0.1:{push.port}/ws", sock=small, ping_interval=None, compression=None, max_queue=1
            ) as stalled:
                await RpcClient(stalled).call("subscribe", topics=["skills"])
                stalled.transport.pause_reading()
                received = []
                async with asyncio.timeout(5):
                    while push.notifier.presence["websocket"] == 2:
                        announce(push.log, push.notifier, 20)
                        received += [(await quick.next_event())["params"] for _ in range(20)]
                stalled.transport.abort()
        ledger = push.notifier.ledger
        assert ledger.undelivered["closed"] > 0
        assert [msgspec.json.encode(params) for params in received] == [Event(row).json for row in push.log.rows]


async def ids_of(client: RpcClient, count: int) -> list[object]:
    """The ids of the next `count` events of the log; states have none."""
    ids: list[object] = []
    while len(ids) < count:
        params = (await client.next_event())["params"]
        assert isinstance(params, dict)
        ids += [params["id"]] if "id" in params else []
    return ids


async def test_what_was_accepted_was_delivered_or_counted_whatever_became_of_the_clients(raw: bool) -> None:
    """Two read, two stop reading, two are cut off; 400 events."""
    async with pushing(stall_s=2.0, raw=raw) as push, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(push.connect()) for _ in range(6)]
        clients = [RpcClient(connection) for connection in connections]
        for client in clients:
            await client.call("subscribe", topics=["skills", "stats"])
        for connection in connections[2:4]:
            connection.transport.pause_reading()
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(ids_of(client, 400)) for client in clients[:2]]
            for number in range(400):
                if number == 100:
                    connections[4].transport.abort()
                if number == 200:
                    connections[5].transport.abort()
                push.notifier.apply([push.log.append(data={"text": "x" * 8192})])
                for each in (b"1", b"2"):
                    push.notifier.publish_state("stats", "cpu", "stats.updated", each)
                await asyncio.sleep(0)
        assert [task.result() for task in reading] == [[row.id for row in push.log.rows]] * 2
        await push.notifier.close()
        ledger = push.notifier.ledger
        assert ledger.published == 1200
        assert ledger.owed == ledger.delivered + ledger.undelivered.total()
        assert ledger.owed > 2 * 1200
        assert ledger.undelivered["conflated"] > 0
        assert ledger.undelivered["closed"] > 0
        for connection in connections[2:4]:
            connection.transport.abort()
