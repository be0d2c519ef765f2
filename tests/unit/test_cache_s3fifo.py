"""S3-FIFO against a model that is written from the paper with lists, and what makes it worth having."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.s3fifo import S3FifoCache

ENTRIES, BYTES = 20, 200


class Item:
    def __init__(self, size: int) -> None:
        self.size = size
        self.hits = 0
        self.spared = 0


class Model:
    """Three lists, oldest first; every step looks at all of it."""

    def __init__(self) -> None:
        self.small: list[str] = []
        self.main: list[str] = []
        self.ghost: list[str] = []
        self.size: dict[str, int] = {}
        self.reads: dict[str, int] = {}

    def hit(self, key: str) -> bool:
        if key in self.size:
            self.reads[key] = min(3, self.reads[key] + 1)
        return key in self.size

    def put(self, key: str, size: int) -> None:
        before = self.size.get(key)
        while key not in self.size and len(self.size) >= ENTRIES:
            self.evict()
        while sum(self.size.values()) - self.size.get(key, 0) + size > BYTES:
            self.evict()
        if before is not None and key in self.size:
            self.size[key] = size
            return
        self.size[key], self.reads[key] = size, 0
        if key in self.ghost:
            self.ghost.remove(key)
            self.main.append(key)
        else:
            self.small.append(key)

    def evict(self) -> None:
        while True:
            small_bytes = sum(self.size[key] for key in self.small)
            if self.small and (len(self.small) * 10 >= ENTRIES or small_bytes * 10 >= BYTES or not self.main):
                key = self.small.pop(0)
                if self.reads[key] >= 2:
                    self.main.append(key)
                    self.reads[key] = 0
                    continue
                self.ghost.append(key)
                self.ghost = self.ghost[-(ENTRIES * 9 // 10) :]
            else:
                key = self.main.pop(0)
                if self.reads[key]:
                    self.reads[key] -= 1
                    self.main.append(key)
                    continue
            del self.size[key], self.reads[key]
            return

    def drop(self, key: str) -> None:
        if self.size.pop(key, None) is not None:
            del self.reads[key]
            (self.small if key in self.small else self.main).remove(key)


def cache_of(evicted: list[str]) -> S3FifoCache:
    return S3FifoCache(
        entries_max=ENTRIES,
        bytes_max=BYTES,
        getsizeof=lambda item: item.size,  # type: ignore[attr-defined]  # the items of this test have one
        on_evict=lambda key, _: evicted.append(key),
    )


def put(cache: S3FifoCache, key: str, size: int) -> None:
    item = Item(size)
    if key in cache:
        item.hits = cache[key].hits
    while len(cache) >= ENTRIES and key not in cache:
        cache.popitem()
    cache[key] = item


KEYS = st.integers(0, 30).map(lambda n: f"k{n}")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), KEYS, st.integers(1, 20)),
        st.tuples(st.just("read"), st.integers(0, 9).map(lambda n: f"k{n}"), st.just(5)),
        st.tuples(st.just("put"), KEYS, st.integers(1, 20)),
        st.tuples(st.just("drop"), KEYS, st.just(0)),
    ),
    min_size=100,
    max_size=300,
)


@given(STEPS)
def test_it_keeps_and_evicts_what_the_model_does(steps: list[tuple[str, str, int]]) -> None:
    cache, model = cache_of([]), Model()
    for step, key, size in steps:
        if step == "drop":
            cache.pop(key, None)
            model.drop(key)
        elif step == "read" and key in cache:
            cache[key].hits += 1
            assert model.hit(key)
        else:
            put(cache, key, size)
            model.put(key, size)
        assert set(cache) == set(model.size)
        assert cache.currsize == sum(model.size.values()) <= BYTES
        assert len(cache) <= ENTRIES


def test_reads_that_brought_a_key_to_main_do_not_count_again_when_it_is_replaced_meanwhile() -> None:
    cache = cache_of([])
    put(cache, "a", 10)
    cache["a"].hits = 2
    for number in range(9):
        put(cache, f"b{number}", 20)
    put(cache, "a", 25)  # makes room: the oldest of the small queue is `a` itself, which goes on to main
    assert "b0" not in cache
    assert (cache["a"].hits, cache["a"].spared) == (2, 2)


def test_a_scan_passes_by_what_is_read_often() -> None:
    evicted: list[str] = []
    cache = cache_of(evicted)
    hot = [f"hot {n}" for n in range(10)]
    for key in hot:
        put(cache, key, 1)
        cache[key].hits += 2
    for n in range(1000):
        put(cache, f"scan {n}", 1)
    assert all(key in cache for key in hot)
    assert len(evicted) == 1010 - ENTRIES


def test_what_comes_back_soon_after_its_eviction_stays() -> None:
    cache = cache_of([])
    put(cache, "back", 1)
    for n in range(ENTRIES):
        put(cache, f"scan {n}", 1)
    assert "back" not in cache
    put(cache, "back", 1)
    for n in range(ENTRIES):
        put(cache, f"another {n}", 1)
    assert "back" in cache


def test_an_empty_cache_has_nothing_to_evict_and_a_cleared_one_forgets_its_ghosts() -> None:
    cache = cache_of([])
    for n in range(3 * ENTRIES):
        put(cache, f"k{n}", 1)
    cache.clear()
    assert len(cache) == 0
    try:
        cache.popitem()
    except KeyError:
        return
    raise AssertionError
