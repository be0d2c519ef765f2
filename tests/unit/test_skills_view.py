import msgspec
import pytest
from msgspec import structs

from services.failures import NotFound
from services.models import Change, Skill
from services.ports import CatalogSnapshot, Position
from services.skills.view import CatalogView
from tests.support.search_parts import change, everyone, skill


def view_of(*skills: Skill) -> CatalogView:
    return CatalogView(CatalogSnapshot(Position("e", 7, "e-7-00000000"), list(skills), {}))


def is_public(found: Skill) -> bool:
    return found.visibility == "public"


def ids(lines: list[bytes]) -> list[str]:
    return [msgspec.json.decode(line)["id"] for line in lines]


def named(*names: str, **fields: str) -> list[Skill]:
    return [skill(name, "d", **fields) for name in names]  # type: ignore[arg-type]


def test_pages_are_in_id_order_and_meet_without_gap_or_repeat() -> None:
    view = view_of(*named("e", "a", "c", "b", "d"))
    lines, cursor = view.page(everyone, limit=2)
    assert (ids(lines), cursor) == (["main/a", "main/b"], "main/b")
    lines, cursor = view.page(everyone, limit=2, after="main/b")
    assert (ids(lines), cursor) == (["main/c", "main/d"], "main/d")
    lines, cursor = view.page(everyone, limit=2, after="main/d")
    assert (ids(lines), cursor) == (["main/e"], None)


def test_a_full_last_page_promises_no_further_one() -> None:
    view = view_of(*named("a", "b"), *named("c", visibility="private"))
    assert view.page(is_public, limit=2)[1] is None


def test_a_cursor_goes_on_where_its_skill_was_even_when_it_is_gone() -> None:
    view = view_of(*named("a", "c"))
    assert ids(view.page(everyone, limit=9, after="main/b")[0]) == ["main/c"]
    assert view.page(everyone, limit=9, after="zzz") == ([], None)


def test_an_owner_s_page_holds_that_owner_alone() -> None:
    view = view_of(
        *named("a", "b", owner="x"), *named("a", owner="x-y"), *named("a", owner="xx"), *named("z", owner="w")
    )
    assert ids(view.page(everyone, limit=9, owner="x")[0]) == ["x/a", "x/b"]
    assert ids(view.page(everyone, limit=1, owner="x", after="x/a")[0]) == ["x/b"]
    assert view.page(everyone, limit=9, owner="x", after="x/b") == ([], None)
    assert view.page(everyone, limit=9, owner="nobody") == ([], None)


def test_a_page_holds_what_the_caller_may_see_in_the_status_asked_for() -> None:
    view = view_of(*named("a", "b"), *named("c", status="quarantined"), *named("d", visibility="private"))
    assert ids(view.page(is_public, limit=9)[0]) == ["main/a", "main/b", "main/c"]
    assert ids(view.page(everyone, limit=9, status="active")[0]) == ["main/a", "main/b", "main/d"]
    assert ids(view.page(everyone, limit=9, status="quarantined")[0]) == ["main/c"]


def test_what_a_caller_may_not_see_does_not_exist() -> None:
    view = view_of(*named("d", visibility="private"))
    with pytest.raises(NotFound):
        view.get("main/d", is_public)
    with pytest.raises(NotFound):
        view.get("main/e", everyone)
    assert view.get("main/d", everyone).name == "d"


def test_rows_add_replace_and_advance_the_revision() -> None:
    view = view_of(*named("b"))
    assert view.revision == 7
    older = view.find("main/b")
    assert older is not None
    newer = structs.replace(older, status="inactive", active=None, seq=9)
    view.apply([change(8, skill("a", "new")), change(9, newer)])
    assert (len(view), view.revision) == (2, 9)
    assert ids(view.page(everyone, limit=9)[0]) == ["main/a", "main/b"]
    assert msgspec.json.decode(view.page(everyone, limit=9)[0][1])["status"] == "inactive"
    assert [found.id for found in view.served(everyone)] == ["main/a"]


def test_a_row_of_another_kind_changes_nothing() -> None:
    view = view_of(*named("b"))
    row: Change = change(8, None)
    view.apply([row])
    assert (len(view), view.revision) == (1, 7)


def test_a_removed_skill_is_as_one_that_never_was() -> None:
    view = view_of(*named("a", "b", "c"))
    gone = structs.replace(skill("b", "d"), status="removed", active=None)
    for _ in range(2):
        view.apply([change(8, gone)])
        assert ids(view.page(everyone, limit=9)[0]) == ["main/a", "main/c"]
        assert (view.find("main/b"), len(view), view.revision) == (None, 2, 8)
    view.apply([change(9, skill("b", "d"))])
    assert ids(view.page(everyone, limit=9)[0]) == ["main/a", "main/b", "main/c"]
