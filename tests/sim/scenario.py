"""One run: replicas, clients and the faults that this seed draws, then a while without faults."""

import asyncio
import functools
from collections.abc import Callable, Sequence

import msgspec
from structlog.testing import capture_logs

from services.changes.levels import BOUNDED, LINEARIZABLE, Level
from services.failures import ServiceError
from tests.sim.check import History, ReadSeen, Write
from tests.sim.loop import NoEnd, SimLoop
from tests.sim.replica import horizon_replicas
from tests.sim.world import KEYS, LIST, LOAD_TIMEOUT_S, Opener, Outside, Replica

RUN_S = 4.0
# Longer than the time limits of a tail (1 s) and of a load, which may have begun with the last fault.
SETTLE_S = LOAD_TIMEOUT_S + 0.5
REPLICAS = 3
READERS = 5
WRITERS = 2
_GIVE_UP_S = 2.5
FAULTS = ("crash", "down", "flush", "hang", "hints", "kill", "l2", "loads", "pause", "poison", "tails")
_POISONS = ("old", "old", "junk", "epoch", "deps", "moved", "forged", "forged")


def simulate(
    seed: int,
    opener: Opener | None = None,
    *,
    faults: Sequence[str] | None = None,
    poisons: Sequence[str] = _POISONS,
) -> History:
    """The history of `seed`. Raises `RuntimeError` for an error that nobody awaited."""
    loop = SimLoop(seed)
    history = History()
    scenario = _Scenario(Outside(loop, seed, history), opener or horizon_replicas(), faults, poisons)
    with capture_logs():
        try:
            loop.run(scenario.run())
        except NoEnd as error:
            now_s = loop.time()
            history.reads.append(ReadSeen("", BOUNDED, now_s, now_s, {}, error=repr(error), recovery=True))
    if loop.failures:
        raise RuntimeError(f"seed {seed}: {loop.failures}")
    return history


class _Scenario:
    def __init__(self, outside: Outside, opener: Opener, faults: Sequence[str] | None, poisons: Sequence[str]) -> None:
        self._outside = outside
        self._opener = opener
        self._loop = outside.loop
        self._random = outside.random
        self._history = outside.history
        self._faults = [each for each in FAULTS if self._random.random() < 0.4] if faults is None else faults
        self._poisons = poisons
        self._history.loads_ended = not {"down", "hang", "pause"} & set(self._faults)
        self._replicas: dict[str, Replica] = {}
        # Some runs read one key, or at one level, most of the time: what is rare elsewhere happens there.
        self._level_weights = [self._random.random() ** 2 for _ in range(3)]
        self._key_weights = [self._random.random() ** 2 for _ in range(4)]
        self._told_seq = 0
        self._is_over = False
        self._born = 0
        self._end_s = self._loop.time() + RUN_S

    async def run(self) -> None:
        for _ in range(REPLICAS):
            self._boot()
        for _ in range(WRITERS):
            self._loop.start("writer", self._write())
        for fault in self._faults:
            self._loop.start("world", self._trouble(fault))
        await asyncio.sleep(RUN_S + SETTLE_S)
        for replica in self._replicas.values():
            for key in (*KEYS, LIST):
                self._loop.start(replica.host, self._read(replica, key, BOUNDED, recovery=True))
        await asyncio.sleep(_GIVE_UP_S)
        self._is_over = True

    def _boot(self) -> None:
        self._born += 1
        self._loop.start(f"replica {self._born}", self._serve(f"replica {self._born}"))

    async def _serve(self, host: str) -> None:
        while True:
            try:
                async with asyncio.timeout(1.0):
                    self._replicas[host] = replica = await self._opener(self._outside, host)
                break
            except (ServiceError, TimeoutError):
                await asyncio.sleep(0.05)
        for _ in range(READERS):
            self._loop.start(host, self._read_on(replica))

    async def _read_on(self, replica: Replica) -> None:
        while self._loop.time() < self._end_s:
            await asyncio.sleep(self._random.expovariate(1 / 0.06))
            levels = (BOUNDED, LINEARIZABLE, Level("session", self._told_seq))
            (level,) = self._random.choices(levels, self._level_weights)
            (key,) = self._random.choices((*KEYS, LIST), self._key_weights)
            await self._read(replica, key, level)

    async def _read(self, replica: Replica, key: str, level: Level, *, recovery: bool = False) -> None:
        seen = ReadSeen(replica.host, level, self._loop.time(), 0.0, {}, recovery=recovery)
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                value, seen.tier, seen.stale, seen.lag_s = await replica.read(key, level)
            seen.versions = msgspec.json.decode(value, type=dict[str, int])
        except (ServiceError, TimeoutError, msgspec.DecodeError) as error:
            seen.error = repr(error)
        seen.returned_s = self._loop.time()
        if not self._is_over:  # then the loop ends what killed replicas had begun, and nobody is there to be told
            self._history.reads.append(seen)

    async def _write(self) -> None:
        while self._loop.time() < self._end_s:
            await asyncio.sleep(self._random.expovariate(1 / 0.12))
            if not self._replicas:
                continue
            host = self._random.choice(list(self._replicas))
            try:
                async with asyncio.timeout(1.0):
                    write = await self._outside.database.commit(self._random.choice(KEYS))
            except (ServiceError, TimeoutError):
                continue
            if "crash" in self._faults and self._random.random() < 0.3:
                continue  # committed, and nobody is told
            if (replica := self._replicas.get(host)) is None:
                continue
            write.acked_s = self._loop.time()
            self._told_seq = max(self._told_seq, write.seq)
            self._loop.start(host, replica.wrote(write.key, write.seq))
            for other in self._replicas.values():
                if other is not replica:
                    self._loop.start("world", self._hint(other, write))

    async def _hint(self, to: Replica, write: Write) -> None:
        is_bad = "hints" in self._faults
        await asyncio.sleep(self._random.uniform(0.0002, 0.8 if is_bad else 0.003))
        if not is_bad or self._random.random() < 0.5:
            self._loop.start(to.host, _heard(to, write))

    async def _trouble(self, fault: str) -> None:
        """Breaks one thing again and again, for a while each time, until the end."""
        hold: Callable[[], float] = functools.partial(self._random.uniform, 0.05, 1.4)
        while True:
            await asyncio.sleep(self._random.expovariate(1 / 0.5))
            if self._loop.time() > self._end_s - 0.1:
                return
            self._history.faults.append((self._loop.time(), fault))
            held_s = min(hold(), self._end_s - self._loop.time())
            if fault == "kill":
                await self._kill()
            elif fault == "pause":
                await self._pause(held_s)
            elif fault == "flush":
                self._outside.second.flush()
            elif fault == "poison":
                for _ in range(4):
                    self._outside.second.poison(self._random.choice(self._poisons))
            elif fault in _SWITCHES:
                part, name = _SWITCHES[fault]
                setattr(getattr(self._outside, part), name, True)
                await asyncio.sleep(held_s)
                setattr(getattr(self._outside, part), name, False)

    async def _pause(self, held_s: float) -> None:
        host = self._random.choice(list(self._replicas) or ["nobody"])
        self._loop.freeze(host)
        await asyncio.sleep(held_s)
        if host in self._replicas or host == "nobody":
            self._loop.thaw(host)  # a killed one stays as it is

    async def _kill(self) -> None:
        if self._replicas:
            host = self._random.choice(list(self._replicas))
            del self._replicas[host]
            self._loop.freeze(host)
            await asyncio.sleep(self._random.uniform(0.01, 0.3))
            self._boot()


_SWITCHES = {
    "down": ("database", "down"),
    "hang": ("database", "hanging"),
    "loads": ("database", "slow_loads"),
    "tails": ("database", "slow_tails"),
    "l2": ("second", "lossy"),
}


async def _heard(replica: Replica, write: Write) -> None:
    replica.hear(write.key, write.seq)
