import msgspec
import pytest
from msgspec import Raw

from notifier import Cursor, Event, Reset, State, StateEvent, UnknownTopic, Viewer, checked_topics, reconnects
from notifier.close_codes import CLOSE_CODES, FORBIDDEN, SHUTDOWN, SLOW, TOO_LARGE, UNAUTHENTICATED, UNAVAILABLE
from tests.support.notifier_log import ListLog, Row


def row(**changes: object) -> Row:
    fields: dict[str, object] = {
        "id": "e1-7-0a1b2c3d",
        "prev": "e1-5-99999999",
        "seq": 7,
        "topic": "skills",
        "kind": "skill.published",
        "owner": "main",
        "visibility": "public",
        "at": "2026-11-21T07:35:52.123Z",
        "data": b'{"id":"main/demo","text":"\xc3\xa9"}',
    }
    return Row(**(fields | changes))  # type: ignore[arg-type]


def test_cursor_reads_what_the_log_writes_even_when_the_epoch_has_dashes() -> None:
    assert Cursor.parse("a-b-12-0a1b2c3d") == Cursor("a-b", 12, "0a1b2c3d")


@pytest.mark.parametrize(
    "text",
    ["", "7", "e1-7", "e1-7-0a1b2c3", "e1-7-0A1B2C3D", "e1-x-0a1b2c3d", "-7-0a1b2c3d", "e1-\u0667-0a1b2c3d", "e1--7"],
)
def test_cursor_refuses_what_the_log_never_wrote(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Cursor.parse(text)


def test_event_splices_the_stored_bytes_and_is_encoded_once_per_wire_form() -> None:
    event = Event(row())

    assert msgspec.json.decode(event.json) == {
        "id": "e1-7-0a1b2c3d",
        "prev": "e1-5-99999999",
        "topic": "skills",
        "kind": "skill.published",
        "at": "2026-11-21T07:35:52.123Z",
        "data": {"id": "main/demo", "text": "é"},
    }
    assert row().data in event.json
    assert event.ws is event.ws
    assert event.sse is event.sse
    assert msgspec.json.decode(event.message) == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": msgspec.json.decode(event.json),
    }
    assert event.sse == b"id: e1-7-0a1b2c3d\ndata: " + event.json + b"\n\n"


def test_stored_json_with_line_breaks_stays_one_sse_event() -> None:
    event = Event(row(data=b'{\r\n  "a": "x\\ny",\n  "b": 1\n}'))

    assert event.sse.count(b"\n") == 3
    assert msgspec.json.decode(event.json)["data"] == {"a": "x\ny", "b": 1}


def test_state_frames_have_no_id_that_a_client_could_resume_from_and_say_what_they_are() -> None:
    state = State("r1", 7, "stats", "cpu", "stats.updated", "now", Raw(b"[1]"), "", "public")
    event = StateEvent(3, state, "fleet", is_own=False)
    told = {
        "topic": "stats",
        "key": "cpu",
        "kind": "stats.updated",
        "at": "now",
        "state_id": "r1-7",
        "own": False,
        "coverage": "fleet",
        "snapshot": False,
        "data": [1],
    }

    assert msgspec.json.decode(event.json) == told
    assert not event.sse.startswith(b"id:")
    for coverage in ("fleet", "degraded", "degraded"):
        assert msgspec.json.decode(event.snapshot(coverage).json) == told | {"snapshot": True, "coverage": coverage}


def test_reset_moves_the_client_to_the_new_position() -> None:
    reset = Reset("trimmed", "e1-9-00000000", "/api/v1/skills")

    assert reset.sse.startswith(b"event: reset\nid: e1-9-00000000\ndata: ")
    assert msgspec.json.decode(reset.message)["method"] == "reset"


def test_viewer_sees_public_things_and_its_owners_private_ones() -> None:
    mine, theirs = row(owner="a", visibility="private"), row(owner="b", visibility="private")

    assert Viewer(frozenset({"a"})).sees(mine)
    assert not Viewer(frozenset({"a"})).sees(theirs)
    assert Viewer(frozenset()).sees(row(owner="b"))
    assert Viewer(None).sees(theirs)


def test_unknown_topics_are_refused_by_a_message_that_names_the_known_ones() -> None:
    assert checked_topics(["skills", "health"]) == {"skills", "health"}
    for bad in (["nope"], ["skills", ""], [], [f"t{n}" for n in range(129)]):
        with pytest.raises(UnknownTopic, match=r"skills.*stats"):
            checked_topics(bad)


def test_close_code_ranges_say_whether_to_reconnect() -> None:
    """The ranges are centrifuge's, `disconnect.go`."""
    for close in (SHUTDOWN, SLOW, UNAVAILABLE):
        assert reconnects(close.code)
    for close in (UNAUTHENTICATED, FORBIDDEN, TOO_LARGE):
        assert not reconnects(close.code)
    assert [reconnects(code) for code in (1000, 1006, 1012, 3499, 3500, 4000, 4499, 4500)] == [
        False, True, True, True, False, True, True, False,
    ]  # fmt: skip
    assert len({close.code for close in CLOSE_CODES}) == len(CLOSE_CODES)


def test_the_test_log_numbers_rows_without_holes() -> None:
    log = ListLog()
    assert [log.append().seq, log.append("tools").seq, log.append().prev] == [1, 2, log.rows[0].id]
