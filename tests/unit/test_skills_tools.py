import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from services.failures import NotFound
from services.models import Skill, ToolSpec
from services.ports import CatalogSnapshot, Position
from services.skills.tools import NAME_LENGTH_MAX, ToolView, callable_name
from services.skills.view import CatalogView
from tests.support.search_parts import change, everyone, skill

ids = st.from_regex(r"\A[a-z0-9](-?[a-z0-9]){0,31}\Z")
names = st.from_regex(r"\A[A-Za-z0-9_-]{1,60}\Z")


def spec(name: str = "run", description: str = "Runs.") -> ToolSpec:
    return ToolSpec(name, description, {"type": "object"}, ["python", "a.py:f"])


def view_of(*skills: Skill) -> ToolView:
    return ToolView(CatalogView(CatalogSnapshot(Position("e", 7, "e-7-00000000"), list(skills), {})))


def served(view: ToolView) -> list[tuple[str, str, str]]:
    return [(tool.name, tool.skill.id, tool.spec.name) for tool in view.listed(everyone)]


def test_a_tool_is_called_by_owner_skill_and_name() -> None:
    view = view_of(skill("calc", "d", tools=[spec("add"), spec("sub")]), skill("plain", "d"))
    assert [name for name, _, _ in served(view)] == ["main_calc_add", "main_calc_sub"]
    assert view.get("main_calc_add", everyone).version.version == 1
    with pytest.raises(NotFound):
        view.get("main_plain_add", everyone)


def test_a_new_version_replaces_the_tools_and_a_deleted_skill_has_none() -> None:
    first = skill("calc", "d", tools=[spec("add"), spec("old")])
    view = view_of(first)
    assert first.active is not None
    second = structs.replace(
        first, active=structs.replace(first.active, version=2, tools=(spec("add", "Anew."), spec("new")))
    )
    view.apply([change(8, second)])
    assert [tool.spec.name for tool in view.of(second)] == ["add", "new"]
    found = view.get("main_calc_add", everyone)
    assert (found.version.version, found.spec.description) == (2, "Anew.")
    view.apply([change(9, structs.replace(second, active=None, status="inactive"))])
    assert (served(view), view.of(second)) == ([], [])


def test_a_caller_finds_only_what_it_may_see() -> None:
    view = view_of(skill("calc", "d", tools=[spec()], visibility="private"))
    assert view.listed(lambda found: found.visibility == "public") == []
    assert view.find("main_calc_run", lambda _: False) is None


@given(owner=ids, name=ids, tool=names)
def test_every_name_keeps_to_what_clients_accept(owner: str, name: str, tool: str) -> None:
    found = callable_name(skill(name, "d", owner=owner), spec(tool))
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", found)
    assert found.startswith(f"{owner}_{name}_"[:51]) or (name == tool and found.startswith(f"{owner}_{name}"[:51]))


@given(st.tuples(ids, ids, names), st.tuples(ids, ids, names))
def test_names_that_are_not_cut_never_meet(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    full = ["_".join(one), "_".join(other)]
    if one != other and max(map(len, full)) <= NAME_LENGTH_MAX:
        assert full[0] != full[1]


def collision() -> tuple[Skill, Skill]:
    """Two skills of one owner whose tools clients know by one name: a cut one, and one made to equal it."""
    long = skill("b" * 64, "long", tools=[spec("run"), spec("walk")])
    cut = callable_name(long, spec("run"))
    assert len(cut) == NAME_LENGTH_MAX
    owner, short_name, digest = cut.split("_")
    short = skill(short_name, "short", owner=owner, tools=[spec(digest), spec("other")])
    assert callable_name(short, spec(digest)) == cut
    return short, long


def test_a_shared_name_is_one_skill_s_whatever_order_the_log_came_in() -> None:
    short, long = collision()
    gone = structs.replace(short, active=None)
    shared = callable_name(long, spec("run"))
    expected = served(view_of(short, long))
    assert [owner for name, owner, _ in expected if name == shared] == [min(short.id, long.id)]
    for order in itertools.permutations([short, long]):
        view = view_of()
        view.apply([change(seq, found) for seq, found in enumerate(order, 8)])
        assert served(view) == expected
        view.apply([change(10, gone), change(11, short), change(12, long)])
        assert served(view) == expected


def test_a_shared_name_falls_to_the_other_skill_when_the_first_goes() -> None:
    short, long = collision()
    view = view_of(long, short)
    shared = callable_name(long, spec("run"))
    first, second = (short, long) if short.id < long.id else (long, short)
    assert shared not in [tool.name for tool in view.of(second)]
    view.apply([change(8, structs.replace(first, active=None))])
    assert view.get(shared, everyone).skill.id == second.id
    assert shared in [tool.name for tool in view.of(second)]
    view.apply([change(9, structs.replace(second, active=None))])
    assert served(view) == []


def test_within_a_skill_the_first_of_two_equal_names_is_kept() -> None:
    long = spec("x" * 60)
    cut = callable_name(skill("calc", "d"), long)
    twin = spec(cut.removeprefix("main_calc_"))
    for tools in ([long, twin], [twin, long]):
        view = view_of(skill("calc", "d", tools=tools))
        assert served(view) == [(cut, "main/calc", tools[0].name)]
