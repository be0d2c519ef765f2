from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from services.changes.log import ChangeFeed
from services.models import Change, Invocation
from services.ports import InvocationQuery, MetadataStore
from services.skills.ranking import ToolRanking
from services.skills.tools import CallableTool, ToolView
from tests.support.drafts import tool
from tests.support.search_parts import everyone, skill
from tests.unit.test_skills_tools import view_of

pytestmark = pytest.mark.anyio


class Calls:
    """A log of calls, newest first, how often it was asked, and the rankings it was given."""

    def __init__(self, targets: Sequence[str]) -> None:
        self.targets = list(targets)
        self.asked = 0
        self.rows: list[Change] = []
        self.counting = ""

    async def acquire_lease(self, _name: str, holder: str, _ttl_s: float) -> bool:
        self.counting = self.counting or holder
        return self.counting == holder

    async def tool_ranking(self) -> tuple[str, ...]:
        return tuple(msgspec.json.decode(self.rows[-1].data)["tools"]) if self.rows else ()

    async def rank_tools(self, names: Sequence[str]) -> int:
        data = msgspec.json.encode({"tools": names})
        at: dict[str, Any] = {"id": "e-1-0", "prev": "", "dep": "tools", "owner": "", "at": ""}
        self.rows.append(
            Change(seq=len(self.rows) + 1, topic="tools", kind="tools.ranked", visibility="private", data=data, **at)
        )
        return len(self.rows)

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


class Feed:
    """Where a write of this replica is announced."""

    def __init__(self) -> None:
        self.committed_up_to = 0

    def committed(self, seq: int) -> None:
        self.committed_up_to = seq


async def ranking(calls: Calls, limit: int, replica: str = "a") -> tuple[ToolRanking, Feed]:
    feed = Feed()
    store, at = cast(MetadataStore, calls), cast(ChangeFeed, feed)
    made = ToolRanking(store, at, replica=replica, limit=limit, is_tool=view().has)
    await made.load()
    await made.refresh()
    made.apply(calls.rows)
    return made, feed


async def test_the_most_used_are_listed_in_name_order_and_the_first_of_equals_stays() -> None:
    made, _ = await ranking(Calls(["main_b_y", "main_b_y", "load_skill", "main_b_x"]), limit=3)
    assert names(made.listed(view().listed(everyone))) == ["main_a_x", "main_b_x", "main_b_y"]


async def test_all_are_listed_while_there_are_no_more_than_the_limit() -> None:
    made, _ = await ranking(Calls([]), limit=4)
    assert len(made.listed(view().listed(everyone))) == 4


async def test_only_another_set_of_listed_tools_is_a_change() -> None:
    calls = Calls(["main_a_x", "main_b_x", "main_b_x"])
    made, feed = await ranking(calls, limit=2)
    assert (len(calls.rows), feed.committed_up_to) == (1, 1)
    calls.targets += ["main_a_x"] * 9
    await made.refresh()
    assert len(calls.rows) == 1, "the same two in another order"
    calls.targets += ["main_b_y"] * 5
    await made.refresh()
    assert (len(calls.rows), feed.committed_up_to) == (2, 2)


async def test_what_is_no_tool_takes_no_place_among_the_listed() -> None:
    calls = Calls(["load_skill", "review", "skill://main/a/SKILL.md", "main_gone_x"] * 9 + ["main_a_x", "main_b_x"])
    made, _ = await ranking(calls, limit=2)
    calls.targets += ["main_b_y"] * 5
    await made.refresh()
    made.apply(calls.rows)
    assert names(made.listed(view().listed(everyone))) == ["main_a_x", "main_b_y"]


async def test_another_replica_neither_counts_within_the_hour_nor_lists_by_counts_of_its_own() -> None:
    calls = Calls(["main_b_x"])
    one, _ = await ranking(calls, limit=1)
    calls.targets = ["main_b_y"] * 5
    asked = calls.asked
    other, _ = await ranking(calls, limit=1, replica="b")
    assert calls.asked == asked
    for each in (one, other):
        assert names(each.listed(view().listed(everyone))) == ["main_b_x"]


async def test_no_more_than_the_newest_calls_are_read() -> None:
    calls = Calls(["main_a_x"] * 20_000)
    await ranking(calls, limit=1)
    assert calls.asked == 10
