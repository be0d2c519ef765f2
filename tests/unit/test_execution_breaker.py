from services.breaker import Breaker


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _opened(clock: FakeClock) -> Breaker:
    breaker = Breaker(threshold=3, cooldown_s=5, clock=clock)
    for _ in range(3):
        assert breaker.allow()
        breaker.failed()
    return breaker


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    breaker = Breaker(threshold=3, cooldown_s=5, clock=FakeClock())
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        assert breaker.allow()
        outcome()
    assert not breaker.is_open
    assert breaker.allow()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()


def test_after_the_cool_down_exactly_one_of_fifty_is_the_probe() -> None:
    clock = FakeClock()
    breaker = _opened(clock)
    clock.now_s += 4.9
    assert not breaker.allow()
    clock.now_s += 0.2
    assert [breaker.allow() for _ in range(50)].count(True) == 1


def test_a_good_probe_closes_it_and_the_count_begins_anew() -> None:
    clock = FakeClock()
    breaker = _opened(clock)
    clock.now_s += 5
    assert breaker.allow()
    breaker.succeeded()
    assert not breaker.is_open
    for _ in range(2):
        assert breaker.allow()
        breaker.failed()
    assert not breaker.is_open


def test_a_bad_probe_starts_the_cool_down_anew() -> None:
    clock = FakeClock()
    breaker = _opened(clock)
    clock.now_s += 5
    assert breaker.allow()
    breaker.failed()
    clock.now_s += 4.9
    assert not breaker.allow()
    clock.now_s += 0.2
    assert breaker.allow()


def test_a_cancelled_probe_leaves_its_turn_to_the_next() -> None:
    clock = FakeClock()
    breaker = _opened(clock)
    clock.now_s += 5
    assert breaker.allow()
    breaker.cancelled()
    assert [breaker.allow(), breaker.allow()] == [True, False]


def test_what_was_let_through_before_it_opened_changes_nothing_now() -> None:
    clock = FakeClock()
    breaker = _opened(clock)
    clock.now_s += 3
    breaker.succeeded()
    breaker.failed()
    assert breaker.is_open
    clock.now_s += 2
    assert breaker.allow()
