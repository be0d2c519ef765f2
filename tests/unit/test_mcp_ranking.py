from collections.abc import Sequence
from typing import Any, cast

import pytest

from gateway.mcp.ranking import ToolRanking
from services.models import Invocation
from services.ports import InvocationQuery, MetadataStore
from services.skills.tools import CallableTool, ToolView
from tests.support.drafts import tool
from tests.support.search_parts import everyone, skill
from tests.unit.test_skills_tools import view_of

pytestmark = pytest.mark.anyio


class Calls:
    """A log of calls, newest first, and how often it was asked."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = list(targets)
        self.asked = 0

    async def invocations(self, query: InvocationQuery) -> list[Invocation]:
        self.asked += 1
        start = int(query.before) + 1 if query.before else 0
        blank: Any = {"at": "", "caller": "", "session": "", "transport": "", "skill_id": "", "digest": "", "code": ""}
        return [
            Invocation(id=str(at), target=target, version=1, ok=True, duration_ms=0.0, arguments="", **blank)
            for at, target in list(enumerate(self.targets))[start : start + query.limit]
        ]


def view() -> ToolView:
    return view_of(skill("a", "d", tools=[tool("x"), tool("y")]), skill("b", "d", tools=[tool("x"), tool("y")]))


def names(tools: Sequence[CallableTool]) -> list[str]:
    return [each.name for each in tools]


async def ranking(calls: Calls, limit: int) -> tuple[ToolRanking, list[str]]:
    changes: list[str] = []
    made = ToolRanking(cast(MetadataStore, calls), limit=limit, changed=lambda: changes.append("changed"))
    await made.refresh()
    return made, changes


async def test_the_most_used_are_listed_in_name_order_and_the_first_of_equals_stays() -> None:
    made, _ = await ranking(Calls(["main_b_y", "main_b_y", "load_skill", "main_b_x"]), limit=3)
    assert names(made.listed(view().listed(everyone))) == ["main_a_x", "main_b_x", "main_b_y"]


async def test_all_are_listed_while_there_are_no_more_than_the_limit() -> None:
    made, _ = await ranking(Calls([]), limit=4)
    assert len(made.listed(view().listed(everyone))) == 4


async def test_a_change_of_the_counts_is_told_once() -> None:
    calls = Calls(["main_a_x"])
    made, changes = await ranking(calls, limit=1)
    await made.refresh()
    assert changes == ["changed"]
    calls.targets.append("main_b_x")
    await made.refresh()
    assert changes == ["changed", "changed"]


async def test_no_more_than_the_newest_calls_are_read() -> None:
    calls = Calls(["main_a_x"] * 20_000)
    await ranking(calls, limit=1)
    assert calls.asked == 10
