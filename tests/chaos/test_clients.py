"""The judgement of `make chaos`: it sees what it is there to see."""

import pytest

from services.changes.log import DELTA_S
from tests.chaos.clients import Phase, Seen


@pytest.fixture
def phase() -> Phase:
    """Version 2 of alpha was written at 10 s, version 3 at 20 s."""
    return Phase({"alpha": {1: 0.0, 2: 10.0, 3: 20.0}})


def test_a_read_is_late_by_the_first_version_it_missed(phase: Phase) -> None:
    assert phase.missed_s(Seen("alpha", "bounded", 20.4, version=1)) == pytest.approx(10.4)
    assert phase.missed_s(Seen("alpha", "bounded", 20.4, version=2)) == pytest.approx(0.4)
    assert phase.missed_s(Seen("alpha", "bounded", 19.9, version=2)) == 0
    assert phase.missed_s(Seen("alpha", "bounded", 20.4, version=4)) == 0


def test_the_bound_is_broken_by_unlabelled_answers_alone(phase: Phase) -> None:
    late_s = 20 + DELTA_S + 0.01
    old = Seen("alpha", "bounded", late_s, version=2)
    labelled = Seen("alpha", "bounded", late_s, version=2, stale=True)
    in_time = Seen("alpha", "bounded", 20 + DELTA_S - 0.01, version=2)
    failed = Seen("alpha", "bounded", late_s, error="503")
    phase.reads = [old, labelled, in_time, failed]
    assert phase.beyond_bound() == [old]


def test_strict_levels_are_judged_by_what_they_promise(phase: Phase) -> None:
    missed = Seen("alpha", "linearizable", 20.01, version=2)
    current = Seen("alpha", "linearizable", 20.01, version=3)
    forgot = Seen("alpha", "session", 20.01, version=2, due=3)
    kept = Seen("alpha", "session", 20.01, version=2, due=2)
    phase.reads = [missed, current, forgot, kept]
    assert phase.stale_linearizable() == [missed]
    assert phase.forgotten_writes() == [forgot]
