"""What every table of a benchmark begins with."""

import os
import platform
import time
from importlib.metadata import version


def machine(*packages: str) -> str:
    told = ", ".join(f"{name} {version(name)}" for name in packages)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} CPUs, load {load}, Python {platform.python_version()}; {told}"


def ns_since(started_ns: int, count: int) -> float:
    return (time.perf_counter_ns() - started_ns) / count


def cpu_ns_since(started_ns: int, count: int) -> float:
    """Of this thread's own time (`time.thread_time_ns`), which others on the machine do not lengthen."""
    return (time.thread_time_ns() - started_ns) / count
