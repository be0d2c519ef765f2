"""One replica's cache against a dict: whatever is done to it and to L2, a read gives what the dict gives."""

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs

from services.changes.levels import BOUNDED, LINEARIZABLE, Level
from services.changes.log import DELTA_S
from services.failures import ServiceError
from tests.sim.check import History
from tests.sim.loop import SimLoop
from tests.sim.replica import horizon_replicas
from tests.sim.world import KEYS, LIST, Outside, Replica

keys = st.sampled_from(KEYS)


class CacheModel(RuleBasedStateMachine):
    """The model: versions by key as committed, and those that were so `DELTA_S` ago."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SimLoop(0)
        self.outside = Outside(self.loop, 0, History())
        self.versions = dict.fromkeys(KEYS, 1)
        self.due: list[tuple[float, str, int]] = [(self.loop.time(), key, 1) for key in KEYS]
        self.told_seq = 0
        self.logs = capture_logs()
        self.logs.__enter__()
        self.replica = self.loop.run_until_complete(self._open("replica 1"))

    def teardown(self) -> None:
        async def nothing() -> None:
            pass

        self.loop.run(nothing())
        self.logs.__exit__(None, None, None)
        assert self.loop.failures == []

    @rule(key=keys)
    def publish(self, key: str) -> None:
        if not self.outside.database.down:
            write = self.loop.run_until_complete(self.outside.database.commit(key))
            self.versions[key], self.told_seq = write.version, write.seq
            self.due.append((self.loop.time(), key, write.version))

    @rule()
    def tell(self) -> None:
        self.replica.hear("", self.told_seq)

    @rule(seconds=st.sampled_from((0.001, 0.1, 0.3, 1.0)))
    def wait(self, seconds: float) -> None:
        async def waited() -> None:
            loop_end = self.loop.create_future()
            self.loop.call_later(seconds, loop_end.set_result, None)
            await loop_end

        self.loop.run_until_complete(waited())

    @rule(kind=st.sampled_from(("old", "junk", "epoch", "deps")))
    def poison(self, kind: str) -> None:
        self.outside.second.poison(kind)

    @rule()
    def flush(self) -> None:
        self.outside.second.flush()

    @rule(down=st.booleans())
    def database(self, down: bool) -> None:
        self.outside.database.down = down

    @rule()
    def restart(self) -> None:
        if not self.outside.database.down:
            self.loop.freeze(self.replica.host)
            host = f"replica {int(self.replica.host.split()[1]) + 1}"
            self.replica = self.loop.run_until_complete(self._open(host))

    @rule(key=st.sampled_from((*KEYS, LIST)), level=st.sampled_from(("bounded", "session", "linearizable")))
    def read(self, key: str, level: str) -> None:
        asked = {"bounded": BOUNDED, "session": Level("session", self.told_seq), "linearizable": LINEARIZABLE}[level]
        due = dict(self.versions)
        if level == "bounded":
            due = {key: number for at_s, key, number in self.due if at_s < self.loop.time() - DELTA_S}
        try:
            answer = self.loop.run_until_complete(self.replica.read(key, asked))
        except ServiceError:
            assert self.outside.database.down
            return
        seen = msgspec.json.decode(answer.value, type=dict[str, int])
        assert set(seen) == (set(KEYS) if key == LIST else {key})
        assert all(number <= self.versions[each] for each, number in seen.items())
        assert answer.stale or all(number >= due.get(each, 1) for each, number in seen.items())
        assert not answer.stale or self.outside.database.down

    @invariant()
    def nothing_failed_unseen(self) -> None:
        assert self.loop.failures == []

    async def _open(self, host: str) -> Replica:
        async def opened() -> Replica:
            return await horizon_replicas()(self.outside, host)

        return await self.loop.spawn(host, opened())


CacheModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCacheModel = CacheModel.TestCase
