"""L1: bounded in entries and bytes, exact in time."""

import pytest

from services.cache.codec import Record
from services.cache.memory import MemoryTier, Policy
from tests.support.listed_log import EPOCH, StoppedClock


def record(value: bytes = b"value") -> Record:
    return Record(EPOCH, 1, ("dep",), value)


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def memory(clock: StoppedClock) -> MemoryTier:
    return MemoryTier(entries_max=3, bytes_max=32 * 1024, policy="lru", clock=clock)


def test_the_least_recently_used_entry_makes_room(memory: MemoryTier) -> None:
    for key in ("a", "b", "c"):
        memory.keep(key, record(), 60)
    assert memory.peek("a") == record()
    memory.touched("a")
    memory.keep("d", record(), 60)
    assert [memory.peek(key) is not None for key in "abcd"] == [True, False, True, True]
    memory.keep("d", record(b"other"), 60)
    assert len(memory) == 3, "replacing an entry evicts none"
    assert memory.peek("d") == record(b"other")


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_the_bytes_held_never_exceed_their_bound(clock: StoppedClock, policy: Policy) -> None:
    memory = MemoryTier(entries_max=10_000, bytes_max=32 * 1024, policy=policy, clock=clock)
    for n in range(200):
        memory.keep(f"key {n}", record(bytes(1000)), 60)
        assert memory.currsize <= 32 * 1024
    assert 15 <= len(memory) <= 32
    assert memory.peek("key 199") is not None


def test_an_entry_ends_exactly_when_its_time_is_up(memory: MemoryTier, clock: StoppedClock) -> None:
    memory.keep("key", record(), 60)
    clock.now_s += 59.999
    assert memory.peek("key") is not None
    clock.now_s = 1060.0
    assert memory.peek("key") is None
    assert memory.find("key") is not None, "it may still stand in for a load that fails"


def test_a_value_over_a_sixteenth_of_the_bytes_is_not_kept_and_nor_is_what_it_replaces(memory: MemoryTier) -> None:
    memory.keep("key", record(bytes(2048)), 60)
    assert memory.peek("key") is not None
    memory.keep("key", record(bytes(2049)), 60)
    assert memory.peek("key") is None


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_the_smallest_memory_that_can_be_set_works(clock: StoppedClock, policy: Policy) -> None:
    memory = MemoryTier(entries_max=1, bytes_max=1024, policy=policy, clock=clock)
    memory.keep("a", record(bytes(64)), 60)
    memory.keep("b", record(bytes(64)), 60)
    assert memory.peek("a") is None
    assert memory.peek("b") is not None


def test_a_dropped_entry_is_gone_and_dropping_nothing_is_no_error(memory: MemoryTier) -> None:
    memory.keep("key", record(), 60)
    memory.drop("key")
    memory.drop("key")
    assert memory.peek("key") is None
    assert memory.currsize == 0


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_whoever_listens_learns_what_left_and_why(clock: StoppedClock, policy: Policy) -> None:
    memory = MemoryTier(entries_max=1, bytes_max=32 * 1024, policy=policy, clock=clock)
    left = []
    memory.on_leave = lambda key, _cell, evicted: left.append((key, evicted))
    memory.keep("a", record(), 60)
    memory.keep("b", record(), 60)
    memory.drop("b")
    assert left == [("a", True), ("b", False)]
    assert memory.evicted == 1


def test_the_short_way_to_a_cell_is_the_one_into_the_cache_itself(memory: MemoryTier) -> None:
    """`cachetools.Cache` keeps its dict private; if a release moves it, hits only become slower."""
    memory.keep("a", record(), 60)
    assert memory.find.__self__ is vars(memory._cells)["_Cache__data"]  # type: ignore[attr-defined]  # a dict's
