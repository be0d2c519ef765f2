"""Which records the log lets in."""

import pytest

from services.cache.codec import Record
from services.cache.horizon import Horizon
from services.failures import Unavailable
from services.models import Change
from tests.support.chaos import TroubledReader
from tests.support.listed_log import EPOCH, ListedLog

pytestmark = pytest.mark.anyio

FLOOR = 10


@pytest.fixture
def horizon() -> Horizon:
    """Follows from 10; since then `skill:a` changed at 11 and `skill:b` at 12."""
    log = ListedLog()
    log.commit(*(["skill:before"] * FLOOR), "skill:a", "skill:b")
    horizon = Horizon(EPOCH, FLOOR)
    horizon.apply(log.rows[FLOOR:])
    return horizon


@pytest.mark.parametrize(
    ("asof", "deps", "allowed"),
    [
        (10, ("skill:a",), False),
        (11, ("skill:a",), True),
        (11, ("skill:a", "skill:b"), False),
        (12, ("skill:a", "skill:b"), True),
        (10, ("skill:untouched",), True),
        (9, ("skill:untouched",), False),
        (9, (), True),
        (11, ("topic:skills",), False),
        (12, ("topic:skills",), True),
    ],
)
def test_a_record_is_good_while_nothing_it_depends_on_changed_after_it(
    horizon: Horizon, asof: int, deps: tuple[str, ...], allowed: bool
) -> None:
    assert horizon.allows(Record(EPOCH, asof, deps, b"")) is allowed


def test_a_record_of_another_epoch_is_refused_whatever_it_says(horizon: Horizon) -> None:
    assert not horizon.allows(Record("e1111111", 10**9, (), b""))


def test_a_change_of_everything_refuses_every_record_from_before_it(horizon: Horizon) -> None:
    log = ListedLog()
    log.commit(*(["skill:before"] * 12), "*")
    horizon.apply(log.rows[12:])
    assert not horizon.allows(Record(EPOCH, 12, (), b""))
    assert horizon.allows(Record(EPOCH, 13, ("skill:a",), b""))


async def test_looking_back_tells_good_from_old_before_the_floor() -> None:
    log = ListedLog()
    log.commit("skill:a", "skill:b", "skill:c")
    horizon = Horizon(EPOCH, 3)
    await horizon.look_back(log, 1)
    allowed = [horizon.allows(Record(EPOCH, 1, (dep,), b"")) for dep in ("skill:a", "skill:b", "skill:untouched")]
    assert allowed == [True, False, True]
    assert not horizon.allows(Record(EPOCH, 0, ("skill:untouched",), b""))


async def test_a_look_back_does_not_undo_what_was_learnt_since() -> None:
    log = ListedLog()
    log.commit("skill:a", "skill:b")
    horizon = Horizon(EPOCH, 2)
    log.commit("skill:a")
    horizon.apply(log.rows[2:])
    await horizon.look_back(log, 0)
    assert not horizon.allows(Record(EPOCH, 2, ("skill:a",), b""))


async def test_looking_back_ends_where_the_log_was_trimmed() -> None:
    log = ListedLog()
    log.commit("skill:a", "skill:b", "skill:c", "skill:d")

    class Trimmed(ListedLog):
        async def tail(self, after: int, limit: int) -> list[Change]:
            return [row for row in await log.tail(after, limit) if row.seq > 2]

    horizon = Horizon(EPOCH, 4)
    await horizon.look_back(Trimmed(), 0)
    assert not horizon.allows(Record(EPOCH, 1, ("skill:untouched",), b""))
    assert horizon.allows(Record(EPOCH, 2, ("skill:untouched",), b""))


async def test_a_look_back_that_fails_changes_nothing() -> None:
    log = ListedLog()
    log.commit("skill:a", "skill:b")
    reader = TroubledReader(log)
    reader.failing = True
    horizon = Horizon(EPOCH, 2)
    with pytest.raises(Unavailable):
        await horizon.look_back(reader, 0)
    assert not horizon.allows(Record(EPOCH, 1, ("skill:untouched",), b""))
