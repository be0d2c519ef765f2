from services import metrics
from services.execution.dialogue import WAITING_MAX, Detach, Dialogue, Log, Progress


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("skillwire_tool_notices_dropped_total") or 0.0


def test_what_a_tool_says_is_heard_in_order() -> None:
    dialogue = Dialogue()
    assert dialogue.hear(b'{"notice":{"kind":"progress","progress":1,"total":2,"message":null}}')
    assert dialogue.hear(b'{"notice":{"kind":"log","level":"info","data":{"a":1}}}')
    assert dialogue.hear(b'{"notice":{"kind":"detach"}}')
    heard = [dialogue.notices.get_nowait() for _ in range(3)]
    assert heard == [Progress(1, 2), Log("info", {"a": 1}), Detach()]


def test_a_frame_that_is_no_notice_is_refused() -> None:
    dialogue = Dialogue()
    for frame in (
        b'{"notice":1}',
        b'{"notice":{"kind":"shell"}}',
        b'{"notice":{"kind":"log","level":"loud","data":1}}',
    ):
        assert not dialogue.hear(frame)
    assert dialogue.notices.empty()


def test_a_flood_is_dropped_and_counted_and_the_call_goes_on() -> None:
    dialogue, before = Dialogue(), dropped()
    for _ in range(WAITING_MAX + 5):
        assert dialogue.hear(b'{"notice":{"kind":"progress","progress":1}}')
    assert dialogue.notices.qsize() == WAITING_MAX
    assert dropped() - before == 5
