import pytest

from gateway.mcp.answers import Answers, Key
from gateway.mcp.uris import SKILL_MD, pinned, root
from notifier.events import Viewer
from services.changes.log import ChangeFeed
from services.models import Skill
from services.ports import CatalogSnapshot, Position
from services.skills.view import CatalogView
from tests.support.listed_log import ListedLog
from tests.support.search_parts import change, skill

EVERYONE = Viewer(owners=None)
PUBLIC = Viewer(owners=frozenset())
LIST = "skills/list"


class Parts:
    """Answers over a view that the test moves; `now_s` is the feed's clock."""

    def __init__(self, bytes_max: int = 1000) -> None:
        self.now_s = 0.0
        snapshot = CatalogSnapshot(Position("e", 7, "e-7-00000000"), [skill("one", "d"), skill("two", "d")], {})
        self.view = CatalogView(snapshot)
        self.feed = ChangeFeed(ListedLog(), snapshot.position, interval_s=1.0, clock=lambda: self.now_s)
        self.feed.horizon_s = 1.0
        self.answers = Answers(self.feed, self.view, bytes_max=bytes_max)

    def keep(self, argument: str, data: bytes = b"data", viewer: Viewer = EVERYONE) -> Key:
        key = Key(viewer, LIST, argument)
        state = self.answers.state(argument)
        assert state is not None
        self.answers.keep(key, state, data)
        return key

    def skill(self, name: str) -> Skill:
        found = self.view.find(f"main/{name}")
        assert found is not None
        return found


def test_a_list_ends_with_any_change_and_a_skills_answer_with_its_own() -> None:
    parts = Parts()
    one, two = parts.skill("one"), parts.skill("two")
    assert one.active is not None
    listed, first, other = parts.keep(""), parts.keep(root(one) + SKILL_MD), parts.keep(pinned(two, one.active))
    assert [parts.answers.find(key) for key in (listed, first, other)] == [b"data"] * 3
    parts.view.apply([change(8, skill("one", "anew", seq=8))])
    assert [parts.answers.find(key) for key in (listed, first, other)] == [None, None, b"data"]


def test_nothing_is_given_past_the_horizon_and_it_is_given_again_once_the_log_has_been_read() -> None:
    parts = Parts()
    key = parts.keep("")
    parts.now_s = 1.0
    assert parts.answers.find(key) is None
    parts.feed.horizon_s = 2.0
    assert parts.answers.find(key) == b"data"


def test_a_new_epoch_ends_everything() -> None:
    parts = Parts()
    key = parts.keep("")
    parts.feed.position = Position("f", 7, "f-7-00000000")
    assert parts.answers.find(key) is None


def test_what_one_viewer_sees_is_not_given_to_another() -> None:
    parts = Parts()
    parts.keep("", b"everything", EVERYONE)
    assert parts.answers.find(Key(PUBLIC, LIST, "")) is None
    parts.keep("", b"public", PUBLIC)
    assert parts.answers.find(Key(Viewer(owners=None), LIST, "")) == b"everything"
    assert parts.answers.find(Key(Viewer(owners=frozenset()), LIST, "")) == b"public"


def test_what_was_kept_first_makes_room_and_the_bytes_are_counted() -> None:
    parts = Parts(bytes_max=10)
    keys = [parts.keep(f"{number}", b"1234") for number in range(3)]
    assert [parts.answers.find(key) for key in keys] == [None, b"1234", b"1234"]
    assert parts.answers.bytes == 8
    parts.keep("1", b"12")
    assert (len(parts.answers), parts.answers.bytes) == (2, 6)


@pytest.mark.parametrize("uri", ["skill://main/none/SKILL.md", "skill://", "skill://main/@x/one/SKILL.md"])
def test_a_uri_that_names_nothing_has_no_state(uri: str) -> None:
    assert Parts().answers.state(uri) is None
