"""Rows of the log become notices, also when what they are about cannot be read at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from gateway.mcp.push import McpPush
from gateway.mcp.streams import Filter
from services.failures import Unavailable
from services.models import Change, Skill
from services.runs.nouns import Run
from services.runs.runs import Runs
from tests.support.listening import Client, listening
from tests.support.search_parts import change, skill

pytestmark = pytest.mark.anyio


class UnreadableAtFirst:
    """Tasks whose state the database does not give the first time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.asked = 0

    async def state(self, run_id: str) -> Run:
        assert run_id == self._run.id
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("the database does not answer")
        return self._run


@asynccontextmanager
async def pushing(*served: Skill, runs: object = None) -> AsyncIterator[McpPush]:
    push = McpPush()
    push.start(cast(Runs, runs), served)
    yield push
    await push.close()


async def told(client: Client, count: int) -> list[str]:
    """What it was told once that is so much, the acknowledgement included."""
    async with asyncio.timeout(5):
        while len(client.told) < count:  # noqa: ASYNC110  # a client has no event for it
            await asyncio.sleep(0.01)
    return client.told[1:]


def prompting(status: str = "active") -> Skill:
    made = skill("greeting", "Greets.")
    assert made.active is not None
    active = msgspec.structs.replace(made.active, frontmatter={**made.active.frontmatter, "user-invocable": True})
    return msgspec.structs.replace(made, active=active if status == "active" else None, status=status)


async def test_a_prompt_that_was_there_at_the_start_and_goes_is_told() -> None:
    async with pushing(prompting()) as push, listening(push.streams, Filter(prompts_list_changed=True)) as client:
        push.apply([change(2, prompting("inactive"))])
        assert await told(client, 2) == ["prompts/list_changed"]


async def test_a_skill_without_prompts_that_goes_is_no_change_of_prompts() -> None:
    both = Filter(prompts_list_changed=True, resources_list_changed=True)
    plain = skill("plain", "Does no more.")
    async with pushing(plain) as push, listening(push.streams, both) as client:
        push.apply([change(2, msgspec.structs.replace(plain, active=None, status="inactive"))])
        assert await told(client, 2) == ["resources/list_changed"]


async def test_a_task_that_cannot_be_read_is_told_later_and_holds_no_other_notice_up() -> None:
    run = Run(
        id="r1",
        principal="all",
        status="cancelled",
        tool="main_one_run",
        skill="main/one",
        version=1,
        digest="sha256:" + "0" * 64,
        replica="r",
        created_at="2026-11-21T00:00:00.000Z",
        changed_at="2026-11-21T00:00:01.000Z",
        expires_at="2026-11-22T00:00:00.000Z",
    )
    runs = UnreadableAtFirst(run)
    wanted = Filter(resources_list_changed=True, task_ids=[run.id])
    async with pushing(runs=runs) as push, listening(push.streams, wanted) as client:
        push.apply([of_run(2, run), change(3, skill("plain", "Does no more."))])
        assert (await told(client, 2))[0] == "resources/list_changed"
        assert (await told(client, 3))[1:] == ["tasks"]
    assert runs.asked == 2


def of_run(seq: int, run: Run) -> Change:
    return msgspec.structs.replace(
        change(seq, None), topic="runs", kind="run.changed", data=msgspec.json.encode({"id": run.id})
    )
