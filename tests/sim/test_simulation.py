"""The cache under simulated faults: 600 seeds hold, planted mistakes are seen, and a seed replays."""

import subprocess
import sys

import pytest

from services.changes.log import DELTA_S
from tests.sim.loop import NoEnd, SimLoop
from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.replica import horizon_replicas
from tests.sim.scenario import FAULTS, simulate
from tests.sim.usual import usual_replica

# A replica that is killed in the simulation leaves coroutines behind that will never be run.
pytestmark = [
    pytest.mark.usefixtures("killed_replicas"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEEDS = 600
STEP = 100


@pytest.mark.parametrize("first", range(0, SEEDS, STEP))
def test_no_read_is_older_than_its_level_allows(first: int) -> None:
    for seed in range(first, first + STEP):
        history = simulate(seed)
        assert history.violations() == [], f"python -m tests.sim --seed {seed}"
        assert history.worst_s() <= DELTA_S


def test_every_fault_and_every_tier_is_met() -> None:
    histories = [simulate(seed) for seed in range(30)]
    assert {fault for history in histories for _, fault in history.faults} == set(FAULTS)
    assert {read.tier for history in histories for read in history.reads} >= {"l1", "l2", "l3"}
    assert any(read.stale for history in histories for read in history.reads)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_seen(mutant: Mutant) -> None:
    opener = horizon_replicas(mutant.parts())
    assert any(simulate(seed, opener).violations() for seed in range(mutant.seeds_max))


def test_the_usual_algorithm_breaks_the_bound_in_most_seeds() -> None:
    broken = [
        seed
        for seed in range(100)
        if any(violation.rule == "bounded" for violation in simulate(seed, usual_replica).violations())
    ]
    assert len(broken) > 75, broken


def test_a_seed_replays_in_another_process() -> None:
    first, second = simulate(7), simulate(8)
    assert first.digest == simulate(7).digest
    assert first.digest != second.digest
    told = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", "7"], capture_output=True, text=True, timeout=30, check=True
    )
    assert f"history {first.digest[:16]}" in told.stdout


def test_a_record_forged_as_newer_than_everything_is_refused() -> None:
    for seed in range(20):
        assert simulate(seed, faults=("poison",), poisons=("forged", "moved")).violations() == []


def test_a_run_in_which_nothing_can_happen_any_more_is_ended() -> None:
    async def forever() -> None:
        await loop.create_future()

    loop = SimLoop(1)
    with pytest.raises(NoEnd, match="deadlock"):
        loop.run(forever())
