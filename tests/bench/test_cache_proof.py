"""Stale reads on real replicas under faults (budget C4) and in the simulator (C5), beside the usual algorithm.

The long runs are `make chaos` and `python -m tests.sim`; this is the same in a few minutes.
"""

import asyncio
import os

import pytest

from tests.chaos.__main__ import run
from tests.chaos.cluster import DEFAULT
from tests.sim.mutants import MUTANTS
from tests.sim.replica import horizon_replicas
from tests.sim.scenario import simulate
from tests.sim.usual import usual_replica
from tests.sim.world import Opener
from tests.support.bench import machine

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "4"))
SEEDS = 600


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_read_is_older_than_its_level_allows_on_real_replicas(database: str) -> None:
    print(f"\n{machine()}; 3 replicas on {database}, Valkey, {SECONDS:g} s a fault")
    broken = asyncio.run(run(SECONDS, 3, DEFAULT, postgres=database == "postgres", usual=False))
    print(f"C4 on {database}: {len(broken)} promises broken")
    assert broken == []


def test_the_usual_algorithm_breaks_the_same_promises() -> None:
    print(f"\n{machine()}; delete and publish, 3 replicas, {SECONDS:g} s a fault")
    broken = asyncio.run(run(SECONDS, 3, DEFAULT, postgres=False, usual=True))
    print(f"the usual algorithm: {len(broken)} reads beyond the bound")
    assert broken


# As in tests/sim: a replica that dies has work that never began.
@pytest.mark.usefixtures("killed_replicas")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_seed_of_the_simulator_shows_a_read_that_is_too_old() -> None:
    ours, usual = _violating(horizon_replicas(), SEEDS), _violating(usual_replica, SEEDS)
    caught = {
        mutant.name: _violating(horizon_replicas(mutant.parts()), mutant.seeds_max, stop=True) for mutant in MUTANTS
    }
    print(f"\n{machine()}")
    print(f"C5: {ours} of {SEEDS} seeds violate the bound, the usual algorithm {usual}")
    print(f"    {sum(map(bool, caught.values()))} of {len(MUTANTS)} planted mistakes are seen")
    assert ours == 0
    assert all(caught.values())


def _violating(opener: Opener, seeds: int, *, stop: bool = False) -> int:
    """How many seeds show a violation; with `stop` at most one."""
    count = 0
    for seed in range(seeds):
        count += bool(simulate(seed, opener).violations())
        if count and stop:
            break
    return count
