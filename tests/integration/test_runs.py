"""Calls that outlive their request, on two replicas over one database, with real workers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from gateway.mcp.questions import questions_of
from services.caller import Caller
from services.execution.calls import CallAnswer, ToolCalls
from services.execution.dialogue import Dialogue
from services.execution.packages import PackageFolders
from services.execution.runner import Runner
from services.failures import NotFound, ToolFailed
from services.models import Invocation
from services.ports import InvocationQuery
from services.presence import Presence
from services.runs.nouns import Run, RunQuery, RunStatus
from services.runs.rules import ROUNDS_MAX
from services.runs.runs import Runs
from services.storage.invocations import InvocationLog
from services.storage.runs import SqlRuns
from services.storage.sql import SqlStore
from tests.support import firewall
from tests.support.packages import Shelf, open_shelf, skill_md, tool, tools_json, zip_of
from tests.support.search_parts import everyone
from tests.support.workers import WAIT_S, running_pool

pytestmark = pytest.mark.anyio

_SCRIPT = b"""
import time

def nap(arguments):
    time.sleep(arguments["s"])
    if arguments.get("fails"):
        raise ValueError("no such luck")
    return {"slept": arguments["s"]}

def ask(arguments, call):
    form = {"message": "Sure?", "requestedSchema": {"type": "object", "properties": {}}}
    question = {"method": "elicitation/create", "params": form}
    if len(call.state) < arguments["rounds"]:
        time.sleep(0.6 if not call.state else 0)
        return {"inputRequests": {"sure": question, "really": question}, "requestState": call.state + "x"}
    return [call.state, call.responses["sure"]["action"]]
"""
_PACKAGE = {
    "SKILL.md": skill_md("slow"),
    "run.py": _SCRIPT,
    "tools.json": tools_json(
        tool("nap", command=["python", "run.py:nap"], task="optional", timeout_s=60),
        tool("ask", command=["python", "run.py:ask"], task="optional", interactive=True),
    ),
}
CLIENT: dict[str, Any] = {"elicitation": {}}
YES = {"action": "accept"}


def caller(name: str = "ann") -> Caller:
    return Caller(name, "mcp", "", everyone)


class Member(NamedTuple):
    """One replica."""

    shelf: Shelf
    runs: Runs

    async def publish(self) -> None:
        await self.shelf.catalog.publish_zip(zip_of(_PACKAGE), owner="main", created_by="ann")
        await self.shelf.feed.tail()

    async def call(self, name: str, client: dict[str, Any] = CLIENT, **arguments: Any) -> CallAnswer | Run:
        called = self.shelf.tools.get(f"main_slow_{name}", everyone)
        return await self.runs.call(called, arguments, caller(), Dialogue(client), client)

    async def begun(self, name: str, client: dict[str, Any] = CLIENT, **arguments: Any) -> Run:
        run = await self.call(name, client, **arguments)
        assert isinstance(run, Run)
        assert run.status == "working"
        return run

    async def until(self, run: Run, status: RunStatus) -> Run:
        async with asyncio.timeout(WAIT_S):
            while True:
                now = await self.runs.get(run.id, "ann")
                if now.status == status:
                    return now
                await asyncio.sleep(0.02)

    async def calls(self, count: int) -> list[Invocation]:
        """The log, once it has so many."""
        async with asyncio.timeout(WAIT_S):
            while True:
                calls = await self.shelf.store.invocations(InvocationQuery(10))
                if len(calls) >= count:
                    return calls
                await asyncio.sleep(0.02)


@asynccontextmanager
async def replica(root: Path, name: str) -> AsyncIterator[Member]:
    """Its presence is not kept up: what it announces lasts for half a minute."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(running_pool(workers_max=4))
        store = await SqlStore.open(f"sqlite:///{root / 'skillwire.db'}")
        stack.push_async_callback(store.close)
        guard = await stack.enter_async_context(firewall.running(store))
        log = InvocationLog(store)
        log.start()
        stack.push_async_callback(log.close)
        made: list[Runs] = []

        def join(shelf: Shelf) -> list[Runs]:
            runner = Runner(pool, PackageFolders(root / f"packages-{name}", shelf.blobs))
            calls = ToolCalls(shelf.tools, runner, log, guard.firewall, frozenset(("main",)))
            alive = Presence(shelf.store, name, "").is_alive
            runs = Runs(
                SqlRuns(shelf.store), calls, shelf.catalog, shelf.feed, questions_of, alive, replica=name, keep_s=3600
            )
            made.append(runs)
            return made

        shelf = await stack.enter_async_context(open_shelf(root, join=join))
        assert await store.acquire_lease(f"replica:{name}", "-", 30)
        stack.push_async_callback(made[0].close)
        yield Member(shelf, made[0])


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Member, Member]]:
    async with replica(tmp_path, "a") as one, replica(tmp_path, "b") as other:
        await one.publish()
        await other.shelf.feed.tail()
        yield one, other


async def test_a_call_that_is_over_soon_is_no_run(pair: tuple[Member, Member]) -> None:
    answer = await pair[0].call("nap", s=0)
    assert isinstance(answer, CallAnswer)
    assert answer.result == {"slept": 0}
    with pytest.raises(ToolFailed):
        await pair[0].call("nap", s=0, fails=True)
    assert await pair[0].runs.list(RunQuery("ann", 10)) == []


async def test_one_that_takes_longer_is_known_and_finished_on_every_replica(pair: tuple[Member, Member]) -> None:
    one, other = pair
    run = await one.begun("nap", s=0.7)
    assert await other.runs.get(run.id, "ann") == run, "before its caller is told of it"
    done = await other.until(run, "completed")
    assert (done.result, done.error, done.arguments) == ({"slept": 0.7}, None, {})
    assert (done.skill, done.version) == ("main/slow", 1)
    assert [each.id for each in await other.runs.list(RunQuery("ann", 10))] == [run.id]

    failed = await other.until(await one.begun("nap", s=0.7, fails=True), "completed")
    assert failed.error is not None
    assert (failed.error.code, failed.result) == ("tool_failed", None)
    assert "no such luck" in failed.error.message


async def test_a_run_is_not_found_by_anybody_else(pair: tuple[Member, Member]) -> None:
    one, other = pair
    run = await one.begun("nap", s=30)
    for attempt in (
        other.runs.get(run.id, "bob"),
        other.runs.cancel(run.id, "bob"),
        other.runs.answer(run.id, {}, caller("bob"), CLIENT),
        other.runs.get("0" * 44, "ann"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await other.runs.list(RunQuery("bob", 10)) == []
    assert (await one.runs.get(run.id, "ann")).status == "working"


async def test_a_cancel_on_another_replica_ends_the_worker(pair: tuple[Member, Member]) -> None:
    one, other = pair
    run = await one.begun("nap", s=30)
    cancelled = await other.runs.cancel(run.id, "ann")
    assert cancelled.status == "cancelled"

    assert [(call.code, call.ok) for call in await one.calls(1)] == [("cancelled", False)]
    assert await other.runs.cancel(run.id, "ann") == cancelled, "once more changes nothing"
    assert await one.runs.get(run.id, "ann") == cancelled


async def test_questions_are_answered_in_parts_on_any_replica_under_keys_that_never_come_twice(
    pair: tuple[Member, Member],
) -> None:
    one, other = pair
    run = await one.begun("ask", rounds=2)
    asks = await other.until(run, "input_required")
    assert sorted(asks.open_questions) == ["1.really", "1.sure"]
    partly = await one.runs.answer(run.id, {"1.sure": YES, "sure": YES, "9.sure": YES}, caller(), CLIENT)
    assert (partly.status, sorted(partly.open_questions)) == ("input_required", ["1.really"])
    assert await one.runs.answer(run.id, {"1.sure": {"action": "decline"}}, caller(), CLIENT) == partly

    goes_on = await other.runs.answer(run.id, {"1.really": YES}, caller(), CLIENT)
    assert (goes_on.status, goes_on.replica) == ("working", "b")
    again = await one.until(run, "input_required")
    assert sorted(again.open_questions) == ["2.really", "2.sure"]
    await one.runs.answer(run.id, {"2.sure": YES, "2.really": YES}, caller(), CLIENT)
    assert (await other.until(run, "completed")).result == ["xx", "accept"]


async def test_of_answers_at_once_one_begins_the_next_round(pair: tuple[Member, Member]) -> None:
    run = await pair[0].begun("ask", rounds=1)
    await pair[0].until(run, "input_required")
    answers = {"1.sure": YES, "1.really": YES}
    await asyncio.gather(*(pair[n % 2].runs.answer(run.id, answers, caller(), CLIENT) for n in range(6)))
    await pair[0].until(run, "completed")
    assert len(await pair[0].calls(2)) == 2, "the round that asked and the one that was answered"


async def test_a_tool_that_asks_for_what_its_client_cannot_give_fails_and_one_that_asks_for_ever_too(
    pair: tuple[Member, Member],
) -> None:
    run = await pair[0].begun("ask", client={}, rounds=1)
    failed = await pair[1].until(run, "failed")
    assert failed.error is not None
    assert failed.error.code == "missing_capability"
    assert failed.error.facts == {"requiredCapabilities": {"elicitation": {}}}

    run = await pair[0].begun("ask", rounds=ROUNDS_MAX)
    for number in range(1, ROUNDS_MAX):
        await pair[0].until(run, "input_required")
        await pair[0].runs.answer(run.id, {f"{number}.sure": YES, f"{number}.really": YES}, caller(), CLIENT)
    failed = await pair[1].until(run, "failed")
    assert failed.error is not None
    assert failed.error.code == "too_many_rounds"


async def test_a_replica_that_ends_says_so_and_what_waits_for_answers_goes_on_elsewhere(tmp_path: Path) -> None:
    async with replica(tmp_path, "b") as other:
        async with replica(tmp_path, "a") as one:
            await one.publish()
            working = await one.begun("nap", s=30)
            asking = await one.begun("ask", rounds=1)
            await one.until(asking, "input_required")
        ended = await other.runs.get(working.id, "ann")
        assert ended.error is not None
        assert (ended.status, ended.error.code) == ("failed", "interrupted")
        await other.runs.answer(asking.id, {"1.sure": YES, "1.really": YES}, caller(), CLIENT)
        assert (await other.until(asking, "completed")).result == ["x", "accept"]


async def test_what_a_dead_replica_worked_on_is_failed_by_another_and_not_at_first_sight(
    pair: tuple[Member, Member],
) -> None:
    one, other = pair
    run = await one.begun("nap", s=30)
    await other.runs.sweep()
    await other.runs.sweep()
    assert (await other.runs.get(run.id, "ann")).status == "working", "its replica is alive"

    await one.shelf.store.release_lease("replica:a", "-")
    await other.runs.sweep()
    assert (await other.runs.get(run.id, "ann")).status == "working", "it may only have been slow to say so"
    await other.runs.sweep()
    failed = await other.runs.get(run.id, "ann")
    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "interrupted")


async def test_a_run_that_nobody_here_works_on_is_failed_by_its_own_replica(pair: tuple[Member, Member]) -> None:
    one, _ = pair
    run = await one.begun("nap", s=30)
    orphan = msgspec.structs.replace(run, id="f" * 44)
    await SqlRuns(one.shelf.store).create(orphan)
    await one.runs.sweep()
    await one.runs.sweep()
    assert (await one.runs.get(orphan.id, "ann")).status == "failed"
    assert (await one.runs.get(run.id, "ann")).status == "working"


async def test_an_expired_run_is_not_found(pair: tuple[Member, Member]) -> None:
    run = await pair[0].begun("nap", s=30)
    await SqlRuns(pair[0].shelf.store).change(
        run.id, lambda run: msgspec.structs.replace(run, expires_at="2026-01-01T00:00:00.000Z")
    )
    with pytest.raises(NotFound):
        await pair[1].runs.get(run.id, "ann")
