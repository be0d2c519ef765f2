"""What one publish among 2,400 skills costs a replica's views: one entry, whatever the catalog's size.

Pages, the compiled list of tools and the details of other skills are made from views that rows of
the log keep current; nothing is loaded again. The last column is what a reload would cost.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable

import pytest

from services.models import Skill
from services.ports import CatalogSnapshot, Position
from services.skills.tools import ToolView
from services.skills.view import CatalogView
from tests.support.drafts import tool
from tests.support.search_parts import change, everyone, skill

pytestmark = pytest.mark.bench

ROUNDS = 300


def snapshot_of(count: int) -> CatalogSnapshot:
    skills = [skill(f"skill-{number:05}", f"Does {number}.", seq=1, tools=[tool("run")]) for number in range(count)]
    return CatalogSnapshot(Position("e", 1, "e-1-00000000"), skills, {})


def median_us(times: int, work: Callable[[int], object]) -> float:
    spent: list[float] = []
    for number in range(times):
        started = time.perf_counter()
        work(number)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent) * 1e6


def test_a_publish_costs_one_entry() -> None:
    print(f"\n{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, median of {ROUNDS}")
    print(f"{'skills':>8} {'apply':>10} {'page of 50':>12} {'full list':>12} {'reload':>12}")
    costs = {count: _measured(count) for count in (24, 240, 2_400, 24_000)}
    assert costs[24_000] < 10 * costs[24], "the cost of a publish grows with the catalog"


def _measured(count: int) -> float:
    """Prints one line; answers the microseconds of a publish."""
    snapshot = snapshot_of(count)
    view = CatalogView(snapshot)
    tools = ToolView(view)

    def publish(number: int) -> None:
        rows = [change(number + 2, _published(number % count, number + 2))]
        view.apply(rows)
        tools.apply(rows)

    apply = median_us(ROUNDS, publish)
    page = median_us(ROUNDS, lambda _: view.page(everyone, limit=50))
    full = median_us(5, lambda _: view.page(everyone, limit=count))
    reload = median_us(3, lambda _: ToolView(CatalogView(snapshot)))
    print(f"{count:>8} {apply:>8.1f}us {page:>10.1f}us {full:>10.1f}us {reload:>10.1f}us")
    unchanged = [entry for entry in view.served(everyone) if entry.seq == 1]
    assert len(unchanged) == max(0, count - ROUNDS), "a publish touches its own entry alone"
    return apply


def _published(number: int, seq: int) -> Skill:
    return skill(f"skill-{number:05}", f"Does {number}, as of {seq}.", seq=seq, tools=[tool("run")])
