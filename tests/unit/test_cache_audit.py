"""The audit: it sees what the cache should not have served, and nothing else."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from services import metrics
from services.cache.audit import PER_ROUND_MAX, Audits
from services.cache.codec import Record
from services.cache.deps import depends_on
from services.failures import NotFound, Unavailable
from tests.sim.mutants import MUTANTS
from tests.sim.replica import AUDIT_ONE_IN, horizon_replicas
from tests.sim.scenario import simulate
from tests.support.cached import CODEC, DEP, KEY, L2_KEY, SPACE, CachedReplica, cached_replica
from tests.support.listed_log import EPOCH

pytestmark = pytest.mark.anyio


class Audited(NamedTuple):
    replica: CachedReplica
    audits: Audits
    stale: list[tuple[str, Record]]

    async def read(self, times: int) -> None:
        for _ in range(times):
            await self.replica.read()

    async def round(self) -> dict[str, float]:
        """What a round came to, by outcome. The replica's clock stands, so that its horizon does not pass."""
        before = outcomes()
        await self.audits.round()
        return {name: count - before[name] for name, count in outcomes().items() if count > before[name]}


def outcomes() -> dict[str, float]:
    return {name: metrics.cache_audits.labels(name)._value.get() for name in ("ok", "stale", "unknown", "skipped")}


@asynccontextmanager
async def audited(one_in: int = 1) -> AsyncIterator[Audited]:
    async with cached_replica() as replica:
        audits = Audits(replica.cache, replica.memory, replica.feed, one_in, choose=random.Random(1))
        made = Audited(replica, audits, [])
        audits.on_stale = lambda key, record: made.stale.append((key, record))
        yield made


async def test_a_record_that_is_the_truth_is_ok_and_is_loaded_once_for_it() -> None:
    async with audited() as at:
        await at.read(4)
        hits = at.replica.cache.stats.l1_hits
        assert await at.round() == {"ok": 1}
        assert (at.replica.truth.loads, at.replica.cache.stats.l1_hits) == (2, hits), "an audit is no reader"
        assert await at.round() == {}, "nothing was read since"


async def test_one_in_so_many_hits_is_audited_however_they_come() -> None:
    async with audited(one_in=10) as at:
        counts: list[float] = []
        for _ in range(5):
            await at.read(5 if counts else 6)  # the first of all is a load
            counts.append((await at.round()).get("ok", 0))
        assert counts == [0, 1, 0, 1, 0]


async def test_what_a_round_cannot_do_is_counted() -> None:
    async with audited() as at:
        await at.read(PER_ROUND_MAX + 6)
        assert await at.round() == {"ok": 1, "skipped": 5}, "one cell, however often it was drawn"


async def test_a_loader_that_forgets_a_dep_is_found_and_logged_with_what_is_needed() -> None:
    """No proof of the tiers sees that: nothing in the log refuses such a record."""
    async with audited() as at:
        numbers = iter(range(10))

        async def forgetful() -> bytes:
            depends_on("skill:main/other")
            return b"%d" % next(numbers)

        for _ in range(2):
            await at.replica.cache.get(SPACE, "forgetful", forgetful)
        at.replica.log.commit(DEP)
        await at.replica.feed.tail()
        await at.replica.cache.get(SPACE, "forgetful", forgetful)
        with capture_logs() as logs:
            assert await at.round() == {"stale": 1}
        assert at.stale == [("forgetful", Record(EPOCH, 0, ("skill:main/other",), b"0"))]
        (line,) = logs
        assert line["log_level"] == "error"
        assert (line["key"], line["asof"], line["deps"], line["applied"]) == ("forgetful", 0, ("skill:main/other",), 1)


async def test_a_difference_that_the_log_refuses_in_time_is_none() -> None:
    async with audited() as at:
        await at.read(2)
        at.replica.log.commit(DEP)  # and not followed: within the bound, the old record may be served
        auditing = asyncio.create_task(at.round())
        await asyncio.sleep(0.01)
        await at.replica.feed.tail()
        assert await auditing == {"ok": 1}
        assert at.replica.truth.loads == 2


@pytest.mark.parametrize("error", [Unavailable("the database is away"), TimeoutError(), OSError()])
async def test_a_truth_that_cannot_be_read_is_unknown(error: Exception) -> None:
    async with audited() as at:
        await at.read(2)
        at.replica.truth.error = error
        assert await at.round() == {"unknown": 1}


async def test_what_is_gone_and_still_served_is_stale() -> None:
    async with audited() as at:
        await at.read(2)
        at.replica.truth.error = NotFound("it is gone")
        assert await at.round() == {"stale": 1}


async def test_a_record_from_a_replica_that_is_ahead_waits_for_the_log_to_get_there() -> None:
    async with audited() as at:
        at.replica.second.forged[L2_KEY] = CODEC.encode(Record(EPOCH, 1, (DEP,), b"as of 1"), L2_KEY, 60)
        await at.read(2)
        at.replica.log.commit(DEP)
        assert await at.round() == {"ok": 1}
        assert at.replica.feed.applied == 1


async def test_a_record_that_nobody_would_be_given_is_not_audited() -> None:
    async with audited() as at:
        await at.read(2)
        at.replica.log.commit(DEP)
        await at.replica.feed.tail()
        assert await at.round() == {}
        assert KEY in dict(at.replica.memory.cells())


@pytest.mark.usefixtures("killed_replicas")
@pytest.mark.parametrize("name", ["validity not checked at a hit", "the seal not looked at"])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_planted_mistake_makes_it_fire(name: str) -> None:
    """In the simulator, on what its replicas served; without the mistake it never fires there."""
    assert AUDIT_ONE_IN == 1
    opener = horizon_replicas(next(each for each in MUTANTS if each.name == name).parts())
    assert any(simulate(seed, opener).stale_audits for seed in range(40))
