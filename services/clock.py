"""Time as the parts see it: durations that count suspension, and UTC stamps for people."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

Monotonic = Callable[[], float]

# CLOCK_BOOTTIME goes on while the machine sleeps, CLOCK_MONOTONIC does not: a cache that trusts
# the latter would serve an hour-old answer as fresh after a laptop lid was opened.
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


# Seconds since an arbitrary start, never set back. A partial and no function: a hit of L1 is
# allowed 150 ns, and a Python call around the clock would be a third of that.
monotonic_s: Monotonic = partial(time.clock_gettime, _BOOTTIME) if _BOOTTIME is not None else time.monotonic


def utc_time() -> datetime:
    return datetime.now(UTC)


def rfc3339(at: datetime) -> str:
    """`2026-11-21T07:35:52.123Z`; of a time in UTC."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_now() -> str:
    return rfc3339(utc_time())
