"""What share of accesses L1 can answer at 2000 entries, against LRU and theine (budget C3).

`SKILLWIRE_TRACES` names a folder with traces of real caches (`<name>.trace.xz`, big-endian unsigned
32-bit keys, such as cache2k's web07 and web12); without it only the generated one is run.
"""

import lzma
import os
import random
import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import cachetools
import pytest

from services.cache.codec import Record
from services.cache.memory import MemoryTier, Policy
from tests.support.bench import machine

theine = pytest.importorskip("theine")  # installed by `make bench`

pytestmark = pytest.mark.bench

ENTRIES = 2000
BUDGETS = {"zipf 0.9": 50.0, "web07": 57.5, "web12": 74.5}
RECORD = Record("e", 1, (), b"")


def zipf(exponent: float, keys: int, accesses: int) -> list[int]:
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return random.Random(1).choices(range(keys), cum_weights=weights, k=accesses)


def traces() -> Iterator[tuple[str, Sequence[int]]]:
    yield "zipf 0.9", zipf(0.9, 100_000, 1_000_000)
    folder = os.environ.get("SKILLWIRE_TRACES")
    for path in sorted(Path(folder).glob("*.trace.xz")) if folder else ():
        data = lzma.decompress(path.read_bytes())
        yield path.name.removesuffix(".trace.xz"), struct.unpack(f">{len(data) // 4}I", data)


def ours(trace: Sequence[int], policy: Policy) -> float:
    memory = MemoryTier(entries_max=ENTRIES, bytes_max=1024 * 1024 * 1024, policy=policy)
    hits = 0
    for number in trace:
        key = str(number)
        cell = memory.find(key)
        if cell is None:
            memory.keep(key, RECORD, 3600)
        else:
            cell.hits += 1
            memory.touched(key)
            hits += 1
    return 100 * hits / len(trace)


def plain_lru(trace: Sequence[int]) -> float:
    cache: cachetools.LRUCache[int, bool] = cachetools.LRUCache(ENTRIES)
    hits = 0
    for key in trace:
        if key in cache:
            hits += cache[key]
        else:
            cache[key] = True
    return 100 * hits / len(trace)


def by_theine(trace: Sequence[int]) -> float:
    cache = theine.Cache(ENTRIES)
    hits = 0
    for key in trace:
        _, found = cache.get(key)
        if found:
            hits += 1
        else:
            cache.set(key, True)
    return 100 * hits / len(trace)


def test_hit_ratio_against_lru() -> None:
    print(f"\n{machine('cachetools', 'theine')}\n  hit ratio in percent at {ENTRIES} entries")
    print(f"  {'trace':<10} {'accesses':>9} {'S3-FIFO':>8} {'our lru':>8} {'cachetools LRU':>15} {'theine':>8}")
    for name, trace in traces():
        s3fifo, lru, plain, peer = ours(trace, "s3fifo"), ours(trace, "lru"), plain_lru(trace), by_theine(trace)
        print(f"  {name:<10} {len(trace):>9} {s3fifo:>8.2f} {lru:>8.2f} {plain:>15.2f} {peer:>8.2f}")
        assert abs(lru - plain) < 0.01
        assert s3fifo > lru
        assert s3fifo >= BUDGETS.get(name, 0)
