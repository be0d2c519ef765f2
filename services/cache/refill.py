"""The side of a miss: L2, the refill lease, the loader, and where its record goes.

One `Refill.load` per key runs at a time (`flight.py`). Its `asof` is read before the loader runs,
never after: a change that the load did not see must have a larger seq than the record claims.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import msgspec

from services import metrics
from services.cache.background import Background
from services.cache.codec import VALUE_BYTES_MAX, Codec, Record, Stored
from services.cache.deps import Capture, capturing
from services.cache.horizon import Horizon
from services.cache.memory import Cell, MemoryTier
from services.cache.space import Loaded, Loader, Space
from services.cache.stats import Stats
from services.cache.trace import Traces
from services.changes.log import DELTA_S, ChangeFeed
from services.failures import NotFound, Unavailable
from services.ports import SecondTier

LEASE_WAIT_S = 0.05
_LEASE_POLL_S = 0.002
_FILLS_MAX = 256
_RELOADS_MAX = 2


class Leases(Protocol):
    """The right to refill a key, so that of many replicas one loads. Losing it costs a load, no more."""

    async def lease(self, key: str) -> bool: ...


class Landed(NamedTuple):
    """A record and its tier, l2 or l3."""

    record: Record
    tier: str


class _Missing(msgspec.Struct, frozen=True, array_like=True):
    """The error a negative record stands for."""

    message: str
    code: str
    facts: dict[str, Any]


def missing(record: Record) -> NotFound:
    """The error that was raised when a negative record was loaded."""
    told = msgspec.msgpack.decode(record.value, type=_Missing)
    return NotFound(told.message, code=told.code, **told.facts)


class Refill:
    """Owns the fills of L2 under way; `close` gives them a moment and ends the rest. `captures` are
    those of the loads under way."""

    def __init__(
        self,
        feed: ChangeFeed,
        horizon: Horizon,
        memory: MemoryTier,
        second: SecondTier,
        codec: Codec,
        leases: Leases | None,
        counts: Stats,
        traces: Traces,
        chance: Callable[[], float],
    ) -> None:
        self._feed = feed
        self._horizon = horizon
        self._memory = memory
        self._second = second
        self._codec = codec
        self._leases = leases
        self._counts = counts
        self._traces = traces
        self._chance = chance
        self._fills = Background(_FILLS_MAX)
        self.captures: dict[str, Capture] = {}

    async def close(self) -> None:
        await self._fills.close(grace_s=0.1)

    def l2_key(self, space: Space, key: str) -> str:
        return f"{self._feed.position.epoch}:{space.name}:{key}"

    def is_overtaken(self, name: str) -> bool:
        """Whether the load under way is known to be older than a change of what it has read so far."""
        capture = self.captures.get(name)
        return capture is not None and self._horizon.changed(capture.deps, capture.asof)

    async def load(
        self, space: Space, key: str, loader: Loader, deps: tuple[str, ...], *, anew: bool = False
    ) -> Landed:
        """The record of `key`, kept in L1 and offered to L2. `anew` asks the loader whatever L2 has."""
        name = self.l2_key(space, key)
        if space.l2 and not anew:
            found = await self._from_second(space, key, name, deps)
            if found is None and self._leases is not None and not await self._leases.lease(name):
                found = await self._awaited_fill(space, key, name, deps)
            if found is not None:
                self._remember(key, loader)
                return found
        offered = False
        try:
            for _ in range(_RELOADS_MAX):
                record, ttl_s, is_stale = await self._run(space, key, name, loader, deps)
                if not is_stale and self._horizon.allows(record):
                    offered = self._keep(space, key, name, record, ttl_s)
                    self._remember(key, loader)
                    break
            return Landed(record, "l3")
        finally:
            if space.l2 and not offered:
                self.withdraw(name)  # gives the lease back, for others to try

    def offer(self, name: str, key: str, record: Record, ttl_s: float) -> bool:
        """Fills L2 in the background; False for a value too large, and, counted, while too many fills
        are under way."""
        if len(record.value) > VALUE_BYTES_MAX:
            return False
        if self._fills.is_full:
            self._counts.fills_skipped += 1
            return False
        self._fills.start(self._fill(name, key, record, ttl_s))
        return True

    async def _fill(self, name: str, key: str, record: Record, ttl_s: float) -> None:
        await self._second.put(name, self._codec.encode(record, name, ttl_s), ttl_s)
        self._traces.emit(key, "stored", tier="l2", ttl_s=ttl_s, asof=record.asof)

    def withdraw(self, name: str) -> None:
        """Removes what L2 has, if it can be reached."""
        if not self._fills.is_full:
            self._fills.start(self._second.put(name, b"", 0))

    def keep_found(self, space: Space, key: str, found: Stored) -> None:
        """Takes a record of L2 into L1 for what is left of its life."""
        ttl_s = space.negative_ttl_s if found.record.negative else space.ttl_hot_s
        self._to_memory(space, key, found.record, min(found.left_s, ttl_s))

    async def _from_second(self, space: Space, key: str, name: str, deps: tuple[str, ...]) -> Landed | None:
        data = await self._second.get(name)
        if data is None:
            self._traces.emit(key, "l2_miss")
            return None
        found = self._codec.decode(data, name)
        # A release that knew of fewer deps must not speak for this one.
        if found is None or not set(deps) <= set(found.record.deps):
            self.withdraw(name)  # else its asof, whatever that is, could keep a good one out
        elif self._horizon.allows(found.record):
            self._counts.l2_hits += 1
            metrics.cache_reads.labels("l2").inc()
            self._traces.emit(key, "l2_hit", asof=found.record.asof, left_s=found.left_s)
            self.keep_found(space, key, found)
            return Landed(found.record, "l2")
        self._counts.refused += 1
        metrics.cache_refused.labels("l2").inc()
        self._traces.emit(key, "l2_refused", asof=found.record.asof if found else None)
        return None

    async def _awaited_fill(self, space: Space, key: str, name: str, deps: tuple[str, ...]) -> Landed | None:
        """What another replica, which is loading it, puts into L2 within `LEASE_WAIT_S`."""
        self._counts.lease_waits += 1
        pause_s = _LEASE_POLL_S
        with suppress(TimeoutError):
            async with asyncio.timeout(LEASE_WAIT_S):
                while True:
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
                    data = await self._second.get(name)
                    found = self._codec.decode(data, name) if data is not None else None
                    if found is not None and self._horizon.allows(found.record):
                        return await self._from_second(space, key, name, deps)
        return None

    async def _run(
        self, space: Space, key: str, name: str, loader: Loader, deps: tuple[str, ...]
    ) -> tuple[Record, float | None, bool]:
        """The loader's answer as a record, its own time to live if it gave one, and whether it is made of
        something stale. Raises what the loader raises, and `Unavailable` when its time is up."""
        capture = self.captures[name] = Capture(self._feed.applied, deps)
        self._horizon.load_begins()
        epoch, started_s, negative = self._feed.position.epoch, self._memory.clock(), False
        self._traces.emit(key, "load_started", asof=capture.asof)
        limit = asyncio.timeout(space.hard_timeout_s)
        ttl_s: float | None = None
        try:
            with capturing(capture):
                async with limit:
                    answer = await loader()
        except NotFound as error:
            # What nothing would ever invalidate must not be remembered as absent.
            if not capture.deps:
                self._failed(key, error)
                raise
            value, negative = msgspec.msgpack.encode(_Missing(error.message, error.code, dict(error.facts))), True
        except TimeoutError as error:
            self._failed(key, error)
            if not limit.expired():
                raise
            raise Unavailable(f"loading took longer than {space.hard_timeout_s:g} s") from error
        except BaseException as error:
            self._failed(key, error)
            raise
        else:
            value, ttl_s = (answer.value, answer.ttl_s) if isinstance(answer, Loaded) else (answer, None)
        finally:
            self._horizon.load_ended()
            if self.captures.get(name) is capture:
                del self.captures[name]
        took_s = self._memory.clock() - started_s
        record = Record(epoch, capture.asof, tuple(sorted(capture.deps)), value, negative, took_s)
        self._counts.loads += 1
        metrics.cache_reads.labels("l3").inc()
        self._traces.emit(key, "load_finished", asof=record.asof, deps=record.deps, ms=took_s * 1000, bytes=len(value))
        return record, ttl_s, capture.is_stale

    def _remember(self, key: str, loader: Loader) -> None:
        """For the audit, which reads the truth again."""
        cell = self._memory.find(key)
        if cell is not None:
            cell.loader = loader

    def _failed(self, key: str, error: BaseException) -> None:
        self._counts.load_failures += 1
        self._traces.emit(key, "load_failed", error=type(error).__name__)

    def _keep(self, space: Space, key: str, name: str, record: Record, ttl_s: float | None) -> bool:
        """Whether L2 will have it too."""
        lives_s = space.negative_ttl_s if record.negative else space.ttl_s
        if ttl_s is None:
            lives_s *= 1 - space.jitter * self._chance()
        else:
            lives_s = ttl_s
        if lives_s <= 0:
            return False
        cell = self._to_memory(space, key, record, lives_s)
        if cell is not None and ttl_s is not None:
            cell.is_pinned = True
        return space.l2 and self.offer(name, key, record, lives_s)

    def _to_memory(self, space: Space, key: str, record: Record, lives_s: float) -> Cell | None:
        early_s = early(record.load_s, self._chance) if not record.negative else 0.0
        cell = self._memory.keep(key, record, lives_s, space, lives_s - early_s)
        if cell is not None:
            cell.sent_s = self._feed.horizon_s - DELTA_S
            self._traces.emit(key, "stored", tier="l1", ttl_s=lives_s, asof=record.asof)
        return cell


def early(load_s: float, chance: Callable[[], float]) -> float:
    """How long before its end to load a record anew: the XFetch rule, with the chance drawn once per
    record and replica instead of once per read, which makes it a moment that a hit need only compare.

    Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention (VLDB 2015).
    """
    return load_s * -math.log(1.0 - chance())
