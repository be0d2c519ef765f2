import pytest

from services.execution.fair_line import FairLine
from services.failures import Exhausted


def test_tenants_take_turns_and_each_keeps_its_order() -> None:
    line: FairLine[str] = FairLine(10)
    for tenant, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")):
        line.join(tenant, item)
    assert line.first() == "a1"
    assert [line.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert line.first() is None


def test_a_full_line_refuses_whoever_comes() -> None:
    line: FairLine[int] = FairLine(2)
    line.join("a", 1)
    line.join("b", 2)
    with pytest.raises(Exhausted) as refused:
        line.join("c", 3)
    assert refused.value.code == "queue_full"
    line.pop()
    line.join("c", 3)
    assert len(line) == 2


def test_leaving_frees_a_place_once() -> None:
    line: FairLine[int] = FairLine(5)
    line.join("a", 1)
    line.join("a", 2)
    line.leave("a", 1)
    line.leave("a", 1)
    line.leave("nobody", 1)
    assert (len(line), line.pop(), line.first()) == (1, 2, None)
