"""L2 on Redis or Valkey: an accelerator that is never trusted and hardly waited for.

All GETs of one loop tick become one MGET, all writes one pipeline: the client's work per command
is what costs, not the server's. A batch is bounded by `TIMEOUT_S` per read of the socket and by
twice that in all, and tried once; after three failures in a row the breaker leaves Redis alone
for five seconds. A failing tier answers like an empty one and counts.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from redis.asyncio.client import Pipeline, Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from services import metrics
from services.breaker import Breaker

TIMEOUT_S = 0.05
LEASE_S = 2.0
_CONNECTIONS_MAX = 20
# While so many batches are under way, further calls gather for the next one.
_BATCHES_MAX = 4
# Of at most 64 KB each, so that a batch of the largest records passes within the time limit.
_BATCH_KEYS_MAX = 128
# More would wait for longer than a load takes.
_WAITING_MAX = 10_000
_PREFIX = "skillwire:main:v3:"
_LEASE_PREFIX = "skillwire:main:lease:"

_FILL = (Path(__file__).parent / "fill.lua").read_bytes()
_FILL_SHA = hashlib.sha1(_FILL, usedforsecurity=False).hexdigest()

log = structlog.get_logger(__name__)


class _Get(NamedTuple):
    key: str
    answer: "asyncio.Future[bytes | None]"


class _Write(NamedTuple):
    add_to: "Callable[[Pipeline], object]"
    answer: "asyncio.Future[Any]"


class RedisTier:
    """`SecondTier` and `Leases`; `url` is `redis://...` or `unix:///path`."""

    def __init__(self, url: str) -> None:
        self._client = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                protocol=2,
                max_connections=_CONNECTIONS_MAX,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # redis-py's own retries turn one GET on a dead server into 2.5 seconds.
                retry=Retry(NoBackoff(), 0),
            )
        )
        self._breaker = Breaker()
        self._gets: list[_Get] = []
        self._writes: list[_Write] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._flush_is_due = False
        self._token = secrets.token_hex(8)
        self.hits = 0
        self.misses = 0
        self.errors = 0

    @property
    def state(self) -> str:
        """`on`, or `open` while Redis is being left alone."""
        return "open" if self._breaker.is_open else "on"

    async def get(self, key: str) -> bytes | None:
        if len(self._gets) >= _WAITING_MAX:
            self.misses += 1
            return None
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._gets.append(_Get(key, answer))
        self._flush_soon()
        value = await answer
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keeps `value` unless a record of a newer asof is there, and ends this replica's lease on
        the key; an empty value removes what is there."""
        names = (_PREFIX + key, _LEASE_PREFIX + key)
        life_ms = max(1, int(ttl_s * 1000))
        await self._write(lambda pipeline: pipeline.evalsha(_FILL_SHA, 2, *names, value, life_ms, self._token))

    async def lease(self, key: str) -> bool:
        """False while another replica loads this key, for at most `LEASE_S`."""
        name, life_ms = _LEASE_PREFIX + key, int(LEASE_S * 1000)
        answer = await self._write(lambda pipeline: pipeline.set(name, self._token, nx=True, px=life_ms, get=True))
        # The holder before: none, or this replica, whose earlier load may have ended without a fill.
        return answer is None or answer == self._token.encode()

    async def ping(self) -> bool:
        """True when Redis answers now, whatever the breaker says of it."""
        try:
            async with asyncio.timeout(TIMEOUT_S * 2):
                return bool(await self._client.ping())
        except (RedisError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        for batch in self._batches:
            batch.cancel()
        if self._batches:
            await asyncio.wait(self._batches)
        _settle([*self._gets, *self._writes], ())
        await self._client.aclose()

    async def _write(self, add_to: Callable[[Pipeline], object]) -> Any:
        """The answer, None also for a command that was not made or failed."""
        if len(self._writes) >= _WAITING_MAX:
            return None
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._writes.append(_Write(add_to, answer))
        self._flush_soon()
        return await answer

    def _flush_soon(self) -> None:
        if not self._flush_is_due and len(self._batches) < _BATCHES_MAX:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        while (self._gets or self._writes) and len(self._batches) < _BATCHES_MAX:
            gets, self._gets = self._gets[:_BATCH_KEYS_MAX], self._gets[_BATCH_KEYS_MAX:]
            writes, self._writes = self._writes[:_BATCH_KEYS_MAX], self._writes[_BATCH_KEYS_MAX:]
            for batch, made in ((gets, self._fetch(gets)), (writes, self._commit(writes))):
                if not batch or not self._breaker.allow():
                    made.close()
                    _settle(batch, ())
                    continue
                task = asyncio.create_task(made, name="redis batch")
                self._batches.add(task)
                task.add_done_callback(self._batch_ended)

    def _batch_ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        if self._gets or self._writes:
            self._flush_soon()

    async def _fetch(self, gets: list[_Get]) -> None:
        try:
            keys = list(dict.fromkeys(get.key for get in gets))
            values = await self._call(self._client.mget([_PREFIX + key for key in keys]))
            found = dict(zip(keys, values or (), strict=False))
            _settle(gets, [found.get(get.key) for get in gets])
        finally:
            _settle(gets, ())

    async def _commit(self, writes: list[_Write]) -> None:
        try:
            answers = await self._call(self._pipelined(writes))
            if answers is None:
                return
            self._count_refusals(answers)
            _settle(writes, [None if isinstance(answer, Exception) else answer for answer in answers])
        finally:
            _settle(writes, ())

    async def _pipelined(self, writes: Sequence[_Write]) -> list[Any]:
        answers = await self._sent(writes)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server was restarted, or flushed
            await self._client.script_load(_FILL)
            again = await self._sent([writes[place] for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return answers

    async def _sent(self, writes: Sequence[_Write]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for write in writes:
                write.add_to(pipeline)
            return await pipeline.execute(raise_on_error=False)

    def _count_refusals(self, answers: Sequence[Any]) -> None:
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if refused:
            self.errors += len(refused)
            metrics.cache_l2_errors.inc(len(refused))
            log.warning("redis refused to write", writes=len(refused), error=str(refused[0]))

    async def _call(self, call: Any) -> Any:
        """The answer of a call that the breaker has allowed; None when it failed."""
        try:
            async with asyncio.timeout(TIMEOUT_S * 2):
                value = await call
        except (RedisError, OSError, TimeoutError) as error:
            self.errors += 1
            metrics.cache_l2_errors.inc()
            was_open = self._breaker.is_open
            self._breaker.failed()
            if self._breaker.is_open and not was_open:
                metrics.cache_l2_open.set(1)
                log.warning("redis does not answer; serving from memory and the database", error=str(error))
            return None
        except asyncio.CancelledError:
            self._breaker.cancelled()
            raise
        if self._breaker.is_open:
            log.info("redis answers again")
        self._breaker.succeeded()
        metrics.cache_l2_open.set(0)
        return value


def _settle(batch: Sequence[_Get | _Write], answers: Sequence[Any]) -> None:
    """Gives every caller that still waits its answer; None where there is none."""
    for place, each in enumerate(batch):
        if not each.answer.done():
            each.answer.set_result(answers[place] if place < len(answers) else None)


class NoSecondTier:
    """`SecondTier` and `Leases` where there is none: always empty, and every lease is granted."""

    state = "off"
    hits = 0
    misses = 0
    errors = 0

    async def get(self, key: str) -> bytes | None:  # noqa: ARG002  # the port's shape
        return None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        pass

    async def lease(self, key: str) -> bool:  # noqa: ARG002  # the port's shape
        return True

    async def close(self) -> None:
        pass
