from typing import Any

import pytest

from services.models import ToolSpec
from services.skills.kinds import kind_problem, match_uri, variables
from tests.support.search_parts import everyone, skill
from tests.unit.test_skills_tools import view_of


def declared(name: str = "run", **more: Any) -> ToolSpec:
    fields: dict[str, Any] = {"input_schema": {"type": "object"}, "command": ["python", "a.py:f"], **more}
    return ToolSpec(name=name, description="d", **fields)


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("main://a/{id}/b", "main://a/12/b", {"id": "12"}),
        ("main://a/{id}/b", "main://a/x%2Fy/b", {"id": "x/y"}),
        ("main://a/{id}/b", "main://a/1/2/b", {}),
        ("main://a/{id}/b", "other://a/1/b", {}),
        ("main://{one}/{two}", "main://x/y", {"one": "x", "two": "y"}),
        ("main://a.b/{id}", "main://aXb/1", {}),
    ],
)
def test_a_template_says_what_its_names_stand_for(template: str, uri: str, values: dict[str, str]) -> None:
    assert match_uri(template, uri) == values


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (declared(kind="resource", uri="notes/{id}"), None),
        (declared(kind="resource", uri="http://elsewhere/x"), "without a scheme"),
        (declared(kind="resource", uri="a/{id}/{id}"), "twice"),
        (declared(kind="resource", uri="a/{Not a name}"), "without a scheme"),
        (declared(kind="resource"), "without a scheme"),
        (declared(uri="notes"), "kind `resource` alone"),
        (declared(kind="prompt", input_schema={"type": "object", "properties": {"n": {"type": "integer"}}}), "texts"),
        (declared(interactive=True, command=["sh", "run.sh"]), "is a function"),
        (declared(requires={"sampling": {}}), "`interactive` alone"),
        (declared(interactive=True, requires={"sampling": {}}), None),
    ],
)
def test_what_cannot_be_served_is_named(spec: ToolSpec, problem: str | None) -> None:
    found = kind_problem(spec)
    assert found is None if problem is None else found is not None and problem in found


def test_prompts_and_resources_are_no_tools_and_do_not_take_their_names() -> None:
    own = [declared("run"), declared("run-it", kind="prompt"), declared("notes", kind="resource", uri="notes/{id}")]
    view = view_of(skill("calc", "d", tools=own))
    assert [tool.name for tool in view.listed(everyone)] == ["main_calc_run"]
    assert [tool.name for tool in view.prompts(everyone)] == ["main_calc_run-it"]
    assert [tool.name for tool in view.resources(everyone)] == ["main://notes/{id}"]
    assert view.find("main_calc_run-it", everyone) is None
    assert view.find("prompt:main_calc_run-it", everyone) is None
    assert view.find_prompt("main_calc_run", everyone) is None
    found = view.find_resource("main://notes/7", everyone)
    assert found is not None
    assert (found[0].spec.name, found[1]) == ("notes", {"id": "7"})
    assert view.find_resource("main://notes/7", lambda _: False) is None
    assert variables("main://notes/{id}") == ["id"]


def test_a_tool_with_its_skills_name_says_it_once() -> None:
    view = view_of(skill("calc", "d", tools=[declared("calc"), declared("add")]))
    assert [tool.name for tool in view.listed(everyone)] == ["main_calc", "main_calc_add"]
