"""L2 on Redis or Valkey: an accelerator that is never trusted and never waited for.

Every call is bounded by `TIMEOUT_S` and tried once; after three failures in a row the breaker
leaves Redis alone for five seconds. A failing tier answers like an empty one and counts.
"""

import asyncio

import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services import metrics
from services.breaker import Breaker

TIMEOUT_S = 0.05
_CONNECTIONS_MAX = 20
# More calls at once than this go without L2: they would wait for a connection for longer than
# `TIMEOUT_S` and look like failures of a server that is well.
_CALLS_MAX = 200
_PREFIX = "skillwire:main:v1:"

log = structlog.get_logger(__name__)


class RedisTier:
    """`SecondTier`; `url` is `redis://...` or `unix:///path`."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
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
        self._under_way = 0
        self.hits = 0
        self.misses = 0
        self.errors = 0

    @property
    def state(self) -> str:
        """`on`, or `open` while Redis is being left alone."""
        return "open" if self._breaker.is_open else "on"

    async def get(self, key: str) -> bytes | None:
        value = await self._call(self._client.get(_PREFIX + key)) if self._admits() else None
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        return bytes(value)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        if self._admits():
            await self._call(self._client.set(_PREFIX + key, value, px=max(1, int(ttl_s * 1000))))

    async def ping(self) -> bool:
        """True when Redis answers now; asked by health checks, outside the breaker."""
        try:
            async with asyncio.timeout(TIMEOUT_S * 2):
                return bool(await self._client.ping())
        except (RedisError, OSError, TimeoutError):
            return False

    async def close(self) -> None:
        await self._client.aclose()

    def _admits(self) -> bool:
        return self._under_way < _CALLS_MAX and self._breaker.allow()

    async def _call(self, call: "asyncio.Future[object] | object") -> bytes | None:
        self._under_way += 1
        try:
            async with asyncio.timeout(TIMEOUT_S * 2):
                value = await call  # type: ignore[misc]  # redis-py types commands for sync and async at once
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
        finally:
            self._under_way -= 1
        if self._breaker.is_open:
            log.info("redis answers again")
        self._breaker.succeeded()
        metrics.cache_l2_open.set(0)
        return value  # type: ignore[no-any-return]  # see above


class NoSecondTier:
    """`SecondTier` where there is none: always empty."""

    state = "off"
    hits = 0
    misses = 0
    errors = 0

    async def get(self, key: str) -> bytes | None:  # noqa: ARG002  # the port's shape
        return None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        pass

    async def close(self) -> None:
        pass
