"""A simulated database and L2, and replicas built from the real cache code, under one seed.

Only what lies outside the process is simulated: the database (snapshots, commit order, latency,
errors, answers that never come), the L2 (loss, delay, reordering, flush, what it should not hold)
and hints between replicas. Every request is served by a task of the world's, so that a frozen or
killed replica's request is answered all the same, as by another process. A load ends within
`LOAD_TIMEOUT_S`, as the store's own time limits see to.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from services.cache.codec import Codec
from services.changes.levels import Level
from services.failures import Unavailable
from services.models import Change
from services.ports import Position
from tests.sim.check import History, Write
from tests.sim.loop import SimLoop

EPOCH = "epoch"
SECRET = b"of this deployment alone"
LOAD_TIMEOUT_S = 1.5
L2_TIMEOUT_S = 0.1
LIST = "list"
KEYS = ("alpha", "beta", "gamma")

T = TypeVar("T")


class Answer(NamedTuple):
    value: bytes
    tier: str
    stale: bool
    lag_s: float


class Replica(Protocol):
    host: str

    async def read(self, key: str, level: Level) -> Answer: ...

    async def wrote(self, key: str, seq: int) -> None:
        """On the replica that committed, after the commit was acknowledged to it."""
        ...

    def hear(self, key: str, seq: int) -> None:
        """A hint of another replica's write, if it arrives."""
        ...


Opener = Callable[["Outside", str], Awaitable[Replica]]


class Outside:
    """What the replicas share: the loop's clock, one database, one L2, one network."""

    def __init__(self, loop: SimLoop, seed: int, history: History) -> None:
        self.loop = loop
        self.random = random.Random(f"world {seed}")
        self.history = history
        self.database = Database(self)
        self.second = SimSecondTier(self)

    async def request(self, act: Callable[[], T], there_s: float, back_s: float, *, lost: bool = False) -> T:
        """`act` at one moment of the other side's; what it raises comes back like an answer."""
        answer: asyncio.Future[T] = self.loop.create_future()

        async def serve() -> None:
            await asyncio.sleep(there_s)
            try:
                result, error = act(), None
            except Unavailable as unavailable:
                result, error = None, unavailable
            await asyncio.sleep(back_s)
            if lost or answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]  # None only beside an error

        self.loop.start("world", serve())
        return await answer


class Database:
    """`ChangeReader` and the truth behind the loader: one growing version per key."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._changes: list[Change] = []
        self.down = False
        self.hanging = False
        self.slow_loads = False
        self.slow_tails = False
        for key in KEYS:
            self._commit(key)

    async def head(self) -> Position:
        return await self._ask(lambda: Position(EPOCH, len(self._changes), self._changes[-1].id), slow=False)

    async def tail(self, after: int, limit: int) -> list[Change]:
        return await self._ask(lambda: self._changes[after : after + limit], slow=self.slow_tails)

    async def load(self, key: str) -> bytes:
        """The versions of `key`, or of all keys for `LIST`, in one snapshot. Raises `Unavailable`."""
        writes = self._outside.history.writes
        keys = KEYS if key == LIST else (key,)
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                versions = await self._ask(lambda: {each: len(writes[each]) for each in keys}, slow=self.slow_loads)
        except TimeoutError as error:
            raise Unavailable("the database does not answer") from error
        return msgspec.json.encode(versions)

    async def commit(self, key: str) -> Write:
        return await self._ask(lambda: self._commit(key), slow=False)

    async def _ask(self, act: Callable[[], T], *, slow: bool) -> T:
        draw = self._outside.random.uniform
        there_s, back_s = (draw(0, 0.7), draw(0, 0.7)) if slow else (draw(0.0001, 0.003), draw(0.0001, 0.003))

        def acted() -> T:
            if self.down:
                raise Unavailable("the database is down")
            return act()

        return await self._outside.request(acted, there_s, back_s, lost=self.hanging)

    def _commit(self, key: str) -> Write:
        writes = self._outside.history.writes.setdefault(key, [])
        seq = len(self._changes) + 1
        write = Write(key, len(writes) + 1, seq, self._outside.loop.time())
        writes.append(write)
        self._changes.append(
            Change(
                id=f"{EPOCH}-{seq}-0", prev="", seq=seq, topic="skills", kind="skill.published", dep=f"skill:{key}",
                owner="main", visibility="public", at="", data=b"{}",
            )
        )  # fmt: skip
        return write


class SimSecondTier:
    """`SecondTier` that forgets, delays, reorders and holds what it should not, when told to."""

    state = "on"
    hits = 0
    misses = 0
    errors = 0

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._values: dict[str, bytes] = {}
        self._puts: list[tuple[str, bytes]] = []
        self.lossy = False

    async def get(self, key: str) -> bytes | None:
        draw = self._outside.random
        if self.lossy and draw.random() < 0.2:
            await asyncio.sleep(L2_TIMEOUT_S)
            return None
        back_s = draw.uniform(0.0001, L2_TIMEOUT_S if self.lossy else 0.002)
        return await self._outside.request(lambda: self._values.get(key), 0.0001, back_s)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:  # noqa: ARG002  # longer than a simulation
        draw = self._outside.random
        if value:  # else the port's word for "remove"
            self._puts.append((key, value))
        if self.lossy and draw.random() < 0.5:
            # Given up by the caller, and done by the server later, or never.
            late_s = draw.uniform(0, 1.0)
            self._outside.loop.start("world", self._put_late(key, value, late_s))
            await asyncio.sleep(L2_TIMEOUT_S)
            return
        await self._outside.request(lambda: self._values.update({key: value}), draw.uniform(0.0001, 0.002), 0.0001)

    async def delete(self, key: str) -> None:
        await self._outside.request(lambda: self._values.pop(key, None), 0.0003, 0.0003)

    async def close(self) -> None:
        pass

    def flush(self) -> None:
        self._values.clear()

    def poison(self, kind: str) -> None:
        """`old`: as restored from a backup; `junk`; `epoch`: of another database; `deps`: of a release
        that knew of fewer; `moved`: another key's; `forged`: an old value that claims to be newer than
        everything, by somebody who has not the key."""
        if not self._puts:
            return
        key, value = self._outside.random.choice(self._puts)
        codec = Codec(SECRET)
        stored = codec.decode(value, key)
        record = stored.record if stored is not None else None
        if kind == "junk":
            value = value[: self._outside.random.randrange(len(value))]
        elif kind == "moved":
            key = self._outside.random.choice(self._puts)[0]
        elif kind == "forged" and (record is None or self._outside.random.random() < 0.5):
            value = value[:4] + (1_000_000).to_bytes(8, "big") + value[12:]
        elif kind == "forged" and record is not None:
            value = Codec(b"of somebody else").encode(msgspec.structs.replace(record, asof=1_000_000), key, 60.0)
        elif kind != "old" and record is not None:
            later = record.asof + 1_000_000
            replace = msgspec.structs.replace
            records = {
                "epoch": replace(record, epoch="other", asof=later),
                "deps": replace(record, deps=("skill:nobody",)),
            }
            value = codec.encode(records[kind], key, 60.0)
        self._values[key] = value

    async def _put_late(self, key: str, value: bytes, late_s: float) -> None:
        await asyncio.sleep(late_s)
        if self._outside.random.random() < 0.8:
            self._values[key] = value
