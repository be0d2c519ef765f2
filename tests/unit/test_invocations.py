"""The invocation log on a real store, which a wrapper makes slow or absent."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.caller import Caller
from services.failures import Invalid, Timeout, Unavailable
from services.models import Invocation
from services.ports import InvocationQuery
from services.storage.invocations import ARGUMENTS_BYTES_MAX, BATCH_MAX, InvocationLog, redacted
from services.storage.sql import SqlStore
from tests.support.packages import WAIT_S, eventually
from tests.support.search_parts import everyone, skill

pytestmark = pytest.mark.anyio

CALLER = Caller("key-1", "mcp", "session-1", everyone)
SKILL = skill("calc", "Calculates.")
assert SKILL.active is not None
VERSION = SKILL.active


class MoodyStore(SqlStore):
    """A real store whose `record` waits while `gate` is clear and fails while `away`."""

    gate: asyncio.Event
    away = False
    refusals = 0
    batches = 0

    async def record(self, invocations: Sequence[Invocation]) -> None:
        await self.gate.wait()
        if self.away:
            self.refusals += 1
            raise Unavailable("the database is away")
        assert len(invocations) <= BATCH_MAX
        self.batches += 1
        await super().record(invocations)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[MoodyStore]:
    opened = await MoodyStore.open(f"sqlite:///{tmp_path / 'log.db'}")
    assert isinstance(opened, MoodyStore)
    opened.gate = asyncio.Event()
    opened.gate.set()
    yield opened
    await opened.close()


async def call(log: InvocationLog, arguments: object = None, error: BaseException | None = None) -> None:
    async with log.logged(CALLER, "main_calc_add", SKILL, VERSION, arguments):
        if error is not None:
            raise error


async def closed(log: InvocationLog) -> None:
    async with asyncio.timeout(WAIT_S):
        await log.close()


async def written(store: SqlStore) -> list[Invocation]:
    return await store.invocations(InvocationQuery(limit=20_000))


async def test_a_call_is_logged_with_who_what_and_which_version(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    await call(log, {"a": 1})
    await closed(log)
    (found,) = await written(store)
    assert (found.caller, found.session, found.transport) == ("key-1", "session-1", "mcp")
    assert (found.target, found.skill_id) == ("main_calc_add", "main/calc")
    assert (found.version, found.digest) == (VERSION.version, VERSION.digest)
    assert (found.ok, found.code, found.arguments) == (True, "", '{"a":1}')
    assert found.duration_ms >= 0


async def test_a_lone_call_is_written_at_once_and_those_that_follow_together(store: MoodyStore) -> None:
    log = InvocationLog(store, gather_s=60.0)
    log.start()
    await call(log)
    await eventually(lambda: store.batches == 1)
    for number in range(20):
        await call(log, {"number": number})
        await asyncio.sleep(0)
    await closed(log)
    assert (store.batches, len(await written(store))) == (2, 21)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid("no"), "invalid"),
        (Timeout("late"), "timeout"),
        (Unavailable("no sandbox", code="no_sandbox"), "no_sandbox"),
        (KeyError("ours"), "internal"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
async def test_a_failed_call_is_logged_with_its_code_and_still_fails(
    store: MoodyStore, error: BaseException, code: str
) -> None:
    log = InvocationLog(store)
    log.start()
    with pytest.raises(type(error)):
        await call(log, {}, error)
    await closed(log)
    (found,) = await written(store)
    assert (found.ok, found.code) == (False, code)


async def test_what_the_tool_does_to_its_arguments_does_not_change_the_log(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    arguments: dict[str, object] = {"a": 1}
    async with log.logged(CALLER, "t", SKILL, VERSION, arguments):
        arguments["a"] = "changed"
    await closed(log)
    assert [found.arguments for found in await written(store)] == ['{"a":1}']


async def test_arguments_that_cannot_be_written_do_not_spoil_the_call(store: MoodyStore) -> None:
    """Python's JSON reader gives half surrogate pairs and a thousand levels; the log's writer takes neither."""
    log = InvocationLog(store)
    log.start()
    deep: object = None
    for _ in range(5000):
        deep = [deep]
    for odd in ({"a": "\ud800"}, {"a": deep}, {"a": object()}, {("a", "b"): 1}):
        await call(log, odd)
    await call(log, {"n": 10**40, "f": float("nan")})
    await closed(log)
    found = [invocation.arguments for invocation in await written(store)]
    assert len(found) == 5
    assert sum(text.startswith("[not shown: ") for text in found) >= 3


async def test_nothing_accepted_is_lost_at_close(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    for at in range(10_000):
        await call(log, at)
    await closed(log)
    assert sorted(int(found.arguments) for found in await written(store)) == list(range(10_000))


async def test_a_call_under_way_at_close_is_waited_for_and_written(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with log.logged(CALLER, "t", SKILL, VERSION, {}):
            entered.set()
            await leave.wait()

    slow_call = asyncio.create_task(slow())
    await asyncio.wait_for(entered.wait(), WAIT_S)
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="shutting down"):
        await call(log)
    assert not closing.done()
    leave.set()
    await asyncio.wait_for(slow_call, WAIT_S)
    await asyncio.wait_for(closing, WAIT_S)
    assert len(await written(store)) == 1


async def test_a_close_that_is_cut_short_leaves_no_task(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    store.gate.clear()
    await call(log)
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_full_log_refuses_before_the_call_runs(store: MoodyStore) -> None:
    log = InvocationLog(store, queue_max=5)
    log.start()
    store.gate.clear()
    for _ in range(5):
        await call(log)
    ran = False
    with pytest.raises(Unavailable) as refused:
        async with log.logged(CALLER, "t", SKILL, VERSION, {}):
            ran = True
    assert (refused.value.code, ran) == ("invocation_log_full", False)
    store.gate.set()
    await call(log)  # waits for room
    await closed(log)
    assert len(await written(store)) == 6


async def test_a_caller_who_gives_up_waiting_takes_no_room(store: MoodyStore) -> None:
    log = InvocationLog(store, queue_max=1)
    log.start()
    store.gate.clear()
    await call(log)
    waiting = [asyncio.create_task(call(log)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    store.gate.set()
    async with asyncio.timeout(WAIT_S):
        await call(log)
    await closed(log)
    assert len(await written(store)) == 2


async def test_a_database_that_is_away_for_a_while_costs_no_record(store: MoodyStore) -> None:
    log = InvocationLog(store)
    log.start()
    store.away = True
    for at in range(700):  # more than one batch
        await call(log, at)
    await eventually(lambda: store.refusals >= 2)
    assert await written(store) == []
    store.away = False
    await closed(log)
    assert [int(found.arguments) for found in await written(store)] == list(reversed(range(700)))


def test_secrets_are_not_kept_wherever_they_stand() -> None:
    arguments = {
        "password": "p1",
        "API_KEY": "p2",
        "apikey": "p3",
        "Authorization": "Bearer p4",
        "nested": {"client_secret": {"value": "p5"}, "list": [{"access_token": "p6"}, [{"credentials": ["p7"]}]]},
        "plain": "kept",
    }
    text = redacted(arguments)
    assert not any(f"p{at}" in text for at in range(1, 8))
    assert json.loads(text)["plain"] == "kept"
    assert json.loads(text)["nested"]["list"][0] == {"access_token": "[redacted]"}
    assert arguments["password"] == "p1"


@pytest.mark.parametrize("character", ["x", "é", "日", "\U0001f600", '"', "\n"])
def test_arguments_are_cut_at_a_kilobyte_between_characters(character: str) -> None:
    for length in range(ARGUMENTS_BYTES_MAX - 40, ARGUMENTS_BYTES_MAX + 40):
        text = redacted({"a": character * length})
        assert len(text.encode()) <= ARGUMENTS_BYTES_MAX
        assert text.endswith("...") or json.loads(text)


def test_arguments_of_exactly_a_kilobyte_are_whole() -> None:
    room = ARGUMENTS_BYTES_MAX - len('{"a":""}')
    assert json.loads(redacted({"a": "x" * room})) == {"a": "x" * room}
    assert redacted({"a": "x" * (room + 1)}).endswith("...")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=20,
)


@given(json_values)
def test_any_arguments_give_a_text_that_can_be_stored(arguments: object) -> None:
    assert len(redacted(arguments).encode()) <= ARGUMENTS_BYTES_MAX
