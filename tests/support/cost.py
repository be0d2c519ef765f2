"""Cost as a ratio to a floor of the same run, because a second on a busy machine means nothing.

The floor is what every package costs anyway: hashing the largest one there may be.
"""

import hashlib
import time
from collections.abc import Callable
from functools import cache

from services.skills.package import PACKAGE_BYTES_MAX


def cpu_s(work: Callable[[], object], tries: int = 1) -> float:
    """This process's own time for `work`, the least of `tries`."""
    least = float("inf")
    for _ in range(tries):
        started = time.process_time()
        work()
        least = min(least, time.process_time() - started)
    return least


@cache
def floor_s() -> float:
    data = bytes(PACKAGE_BYTES_MAX)
    return cpu_s(lambda: hashlib.sha256(data).digest(), tries=5)
