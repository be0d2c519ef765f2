import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from notifier import RpcCall, RpcError, RpcRegistry
from notifier.rpc_connection import CALLS_MAX, RpcConnection
from tests.unit.test_notifier_protocol import INVALID, PARSE_ERROR

pytestmark = pytest.mark.anyio


class Wire:
    """What a connection sent, decoded, in order."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, message: bytes) -> None:
        self.messages.put_nowait(msgspec.json.decode(message))

    async def writable(self) -> None:
        """At once."""

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return await self.messages.get()


class Gate:
    """A command that waits to be let through, and says when it runs and how it ended."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.open = asyncio.Event()
        self.was_cancelled = asyncio.Event()

    async def __call__(self, _: RpcCall) -> bytes:
        self.running.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        return b'"through"'


def translate(exc: Exception) -> RpcError:
    return RpcError(-32050, str(exc), {"code": "translated"})


@pytest.fixture
def registry() -> RpcRegistry:
    registry = RpcRegistry(translate)

    @registry.command("subtract")
    async def subtract(call: RpcCall) -> bytes:
        params = msgspec.json.decode(call.params)
        a, b = params if isinstance(params, list) else (params["minuend"], params["subtrahend"])
        return msgspec.json.encode(a - b)

    @registry.command("sum")
    async def add_up(call: RpcCall) -> bytes:
        return msgspec.json.encode(sum(call.decoded(list[int])))

    @registry.command("get_data")
    async def get_data(_: RpcCall) -> bytes:
        return b'["hello", 5]'

    for name in ("update", "notify_hello", "notify_sum"):
        registry.add(name, get_data)
    return registry


@asynccontextmanager
async def connected(registry: RpcRegistry) -> AsyncIterator[tuple[RpcConnection, Wire]]:
    wire = Wire()
    connection = RpcConnection(registry, "someone", wire.send, wire.writable, {})
    try:
        yield connection, wire
    finally:
        await connection.close()


def request(number: int, method: str, **params: object) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def at_once(connection: RpcConnection, *messages: bytes) -> None:
    """Has them read in one turn of the loop, and in no task: as they are when a transport reads."""

    def read() -> None:
        for message in messages:
            connection.receive(message)

    asyncio.get_running_loop().call_soon(read)


def by_id(reply: dict[str, object]) -> str:
    return str(reply["id"])


def not_found(request_id: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": request_id}


SPEC_TABLE = [
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        {"jsonrpc": "2.0", "result": 19, "id": 1},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        {"jsonrpc": "2.0", "result": -19, "id": 2},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        {"jsonrpc": "2.0", "result": 19, "id": 3},
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        {"jsonrpc": "2.0", "result": 19, "id": 4},
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', not_found("1")),
    ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE_ERROR),
    ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    (
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
        PARSE_ERROR,
    ),
    ("[]", INVALID),
    ("[1]", [INVALID]),
    ("[1,2,3]", [INVALID, INVALID, INVALID]),
    (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [
            {"jsonrpc": "2.0", "result": 7, "id": "1"},
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            INVALID,
            not_found("5"),
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"},
        ],
    ),
    (
        '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},'
        ' {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
        None,
    ),
]


@pytest.mark.parametrize(("sent", "expected"), SPEC_TABLE, ids=range(len(SPEC_TABLE)))
async def test_examples_of_the_specification(registry: RpcRegistry, sent: str, expected: Any) -> None:
    """https://www.jsonrpc.org/specification section 7; a batch may be answered in any order."""
    async with connected(registry) as (connection, wire):
        connection.receive(sent)
        await connection.finish()
        received = [] if wire.messages.empty() else [await wire.next()]

    if isinstance(expected, list):
        assert len(received) == 1
        assert sorted(received[0], key=by_id) == sorted(expected, key=by_id)
    else:
        assert received == ([] if expected is None else [expected])


async def test_wrong_params_are_named_and_other_errors_are_translated_by_the_edge(registry: RpcRegistry) -> None:
    @registry.command("fail")
    async def fail(_: RpcCall) -> bytes:
        raise KeyError("secret")

    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "sum", a=1))
        error = (await wire.next())["error"]
        assert (error["code"], error["data"]["code"]) == (-32602, "invalid")
        connection.receive(request(2, "fail"))
        assert (await wire.next())["error"] == {"code": -32050, "message": "'secret'", "data": {"code": "translated"}}


async def test_call_beyond_the_bound_is_refused_with_a_time_to_retry(registry: RpcRegistry) -> None:
    gate = Gate()
    registry.add("wait", gate)
    async with connected(registry) as (connection, wire):
        for number in range(CALLS_MAX + 1):
            connection.receive(request(number, "wait"))
        refused = await wire.next()
        assert (refused["id"], refused["error"]["code"]) == (CALLS_MAX, -32029)
        assert refused["error"]["data"]["retryAfterMs"] > 0

        gate.open.set()
        assert {(await wire.next())["id"] for _ in range(CALLS_MAX)} == set(range(CALLS_MAX))
        connection.receive(request(99, "get_data"))
        assert (await wire.next())["id"] == 99


async def test_cancelled_call_stops_and_is_not_answered(registry: RpcRegistry) -> None:
    gate = Gate()
    registry.add("wait", gate)
    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "wait"))
        async with asyncio.timeout(5):
            await gate.running.wait()
            connection.receive('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
            await gate.was_cancelled.wait()
            await connection.finish()
        assert wire.messages.empty()


async def test_call_that_takes_too_long_is_stopped_and_says_so(registry: RpcRegistry) -> None:
    gate = Gate()
    registry.add("wait", gate, timeout_s=0.01)
    patient = Gate()
    registry.add("patient", patient)
    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "wait"))
        assert (await wire.next())["error"]["data"] == {"code": "timeout", "retryable": True}
        assert gate.was_cancelled.is_set()
        connection.receive(request(2, "patient", _meta={"timeoutMs": 10}))
        assert (await wire.next())["error"]["code"] == -32001


async def test_timeout_of_the_commands_own_is_an_error_like_others(registry: RpcRegistry) -> None:
    @registry.command("impatient")
    async def impatient(_: RpcCall) -> bytes:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        return b"null"

    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "impatient"))
        assert (await wire.next())["error"]["data"] == {"code": "translated"}


async def test_call_that_is_cancelled_when_its_time_is_up_is_not_answered(registry: RpcRegistry) -> None:
    reached = asyncio.Event()

    async def dawdle(_: RpcCall) -> bytes:
        cancel = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
        asyncio.get_running_loop().call_later(0.01, connection.receive, cancel)
        time.sleep(0.02)  # noqa: ASYNC251  # both are due in the turn that comes
        try:
            await asyncio.Event().wait()
        finally:
            reached.set()
        return b"null"

    registry.add("dawdle", dawdle, timeout_s=0.0)
    async with connected(registry) as (connection, wire):
        at_once(connection, request(1, "dawdle"))
        async with asyncio.timeout(5):
            await reached.wait()
            await connection.finish()
        assert wire.messages.empty()


async def test_what_never_waits_is_answered_before_the_next_message_is_read(registry: RpcRegistry) -> None:
    gate = Gate()
    gate.open.set()
    registry.add("open", gate)

    @registry.command("parity")
    def parity(call: RpcCall) -> Coroutine[Any, Any, bytes] | bytes:
        return b'"even"' if call.decoded(dict[str, int])["n"] % 2 == 0 else gate(call)

    @registry.command("broken")
    def broken(_: RpcCall) -> bytes:
        raise KeyError("secret")

    async with connected(registry) as (connection, wire):
        calls = [request(1, "parity", n=2), request(2, "open"), request(3, "broken"), request(4, "parity", n=3)]
        at_once(connection, *calls)
        await asyncio.sleep(0)  # the turn in which they are read
        replies = [wire.messages.get_nowait() for _ in calls]
    assert [reply.get("result", reply.get("error", {}).get("code")) for reply in replies] == [
        "even",
        "through",
        -32050,
        "through",
    ]


async def test_what_a_batch_leaves_for_after_its_reply_comes_after_it(registry: RpcRegistry) -> None:
    gate = Gate()
    registry.add("wait", gate)
    sent_before: list[int] = []

    @registry.command("follow")
    async def follow(call: RpcCall) -> bytes:
        call.after_reply(lambda: sent_before.append(wire.messages.qsize()))
        return b"true"

    async with connected(registry) as (connection, wire):
        connection.receive(b"[%s,%s]" % (request(1, "follow"), request(2, "wait")))
        async with asyncio.timeout(5):
            await gate.running.wait()
            assert sent_before == []
            gate.open.set()
            await connection.finish()
        assert sent_before == [1]
        assert {reply["id"] for reply in await wire.next()} == {1, 2}


async def test_progress_comes_before_the_result_and_only_when_asked_for(registry: RpcRegistry) -> None:
    @registry.command("work")
    async def work(call: RpcCall) -> bytes:
        await call.progress(b'{"done":1}')
        return b"true"

    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "work", _meta={"progressToken": "t"}))
        assert await wire.next() == {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": "t", "value": {"done": 1}},
        }
        assert (await wire.next())["result"] is True
        connection.receive(request(2, "work"))
        assert (await wire.next())["id"] == 2


async def test_command_may_ask_the_client_back(registry: RpcRegistry) -> None:
    @registry.command("delete")
    async def delete(call: RpcCall) -> bytes:
        return bytes(await call.reverse("confirm", b'{"what":"all"}', 5.0))

    async with connected(registry) as (connection, wire):
        connection.receive(request(1, "delete"))
        question = await wire.next()
        assert question == {"jsonrpc": "2.0", "id": "s-1", "method": "confirm", "params": {"what": "all"}}
        connection.receive('{"jsonrpc":"2.0","id":"s-1","result":{"yes":true}}')
        assert (await wire.next())["result"] == {"yes": True}

        connection.receive(request(2, "delete"))
        await wire.next()
        connection.receive('{"jsonrpc":"2.0","id":"s-2","error":{"code":-1,"message":"no"}}')
        assert (await wire.next())["error"] == {"code": -1, "message": "no"}


async def test_call_to_a_client_that_is_silent_or_gone_fails(registry: RpcRegistry) -> None:
    async with connected(registry) as (connection, wire):
        with pytest.raises(RpcError, match="in time"):
            await connection.call("confirm", b"{}", 0.01)
        waiting = asyncio.create_task(connection.call("confirm", b"{}", 5.0))
        await wire.next()
        await wire.next()
        await connection.close()
        with pytest.raises(RpcError, match="gone"):
            await waiting
        with pytest.raises(RpcError, match="gone"):
            await connection.call("confirm", b"{}", 5.0)


async def test_close_ends_the_calls_that_still_run(registry: RpcRegistry) -> None:
    gate = Gate()
    registry.add("wait", gate)
    async with connected(registry) as (connection, _):
        connection.receive(request(1, "wait"))
        async with asyncio.timeout(5):
            await gate.running.wait()
    assert gate.was_cancelled.is_set()


async def test_name_can_be_registered_once(registry: RpcRegistry) -> None:
    with pytest.raises(ValueError, match="registered already"):
        registry.add("sum", Gate())
