"""The edge's `skills/list`: pages in order, for who sees what, as the catalog is now."""

import json
from typing import Any

from gateway.mcp.skill_list import PAGE, SkillList
from notifier.events import Viewer
from services.ports import CatalogSnapshot, Position
from services.skills.view import CatalogView
from tests.support.search_parts import change, skill

EVERYONE = Viewer(owners=None)


def list_of(*names: str, **more: Any) -> tuple[CatalogView, SkillList]:
    snapshot = CatalogSnapshot(Position("e", 7, "e-7-00000000"), [skill(name, "d", **more) for name in names], {})
    view = CatalogView(snapshot)
    return view, SkillList(view, {"server": "s"})


def page(made: SkillList, cursor: str = "", viewer: Viewer = EVERYONE) -> dict[str, Any]:
    data = made.page(viewer, cursor)
    assert data is not None
    result: dict[str, Any] = json.loads(data + b"}")["result"]
    return result


def names(result: dict[str, Any]) -> list[str]:
    return [entry["frontmatter"]["name"] for entry in result["skills"]]


def test_pages_join_to_the_whole_list() -> None:
    every = [f"skill-{number:04}" for number in range(2 * PAGE + 1)]
    _, made = list_of(*every)
    first = page(made)
    second = page(made, first["nextCursor"])
    third = page(made, second["nextCursor"])
    assert names(first) + names(second) + names(third) == every
    assert "nextCursor" not in third


def test_a_full_last_page_names_no_further_one() -> None:
    _, made = list_of(*(f"skill-{number:04}" for number in range(PAGE)))
    assert "nextCursor" not in page(made)


def test_a_cursor_of_another_form_is_left_to_the_sdk() -> None:
    _, made = list_of("one")
    assert made.page(EVERYONE, "a/b/c") is None


def test_an_empty_catalog_is_an_empty_list() -> None:
    _, made = list_of()
    assert page(made)["skills"] == []


def test_every_answer_names_the_revision_and_the_server() -> None:
    view, made = list_of("one")
    view.apply([change(8, skill("two", "d", seq=8))])
    assert page(made)["_meta"] == {"dev.skillwire/revision": 8, "server": "s"}
    assert names(page(made)) == ["one", "two"]


def test_what_is_not_seen_is_not_listed() -> None:
    view, made = list_of("open")
    view.apply([change(8, skill("closed", "d", seq=8, visibility="private"))])
    assert names(page(made)) == ["closed", "open"]
    assert names(page(made, viewer=Viewer(owners=frozenset()))) == ["open"]


def test_a_change_is_in_the_next_page() -> None:
    view, made = list_of("one", "two", "three")
    before = page(made)
    view.apply([change(8, skill("two", "Otherwise.", seq=8))])
    described = {entry["frontmatter"]["name"]: entry["frontmatter"]["description"] for entry in page(made)["skills"]}
    assert names(before) == sorted(described)
    assert described == {"one": "d", "two": "Otherwise.", "three": "d"}
