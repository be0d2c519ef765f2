"""Telling other replicas that something was committed, so that they tail now and not at their next turn.

A hint is a seq and nothing else, and whoever receives one does nothing but tail sooner: lost,
late, repeated and forged hints change no answer, only how soon it comes. So nothing here is
tried again, waited for or raised; without Redis the tail's own interval is what remains, or the
hints of PostgreSQL (`postgres_hints.py`).
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from redis.asyncio.client import PubSub, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services import metrics
from services.breaker import Breaker

CHANNEL = "skillwire:main:hint"
TIMEOUT_S = 0.05
# Between two hints that are acted on: a flood of forged ones costs 200 tails a second at most.
QUIET_S = 0.005
# A connection on which nothing came for this long is asked, and given up when it does not answer.
SILENCE_S = 5.0
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0
_SEQ = re.compile(r"[0-9]{1,15}")

Hinted = Callable[[int], None]
"""Told of a seq that somebody says is committed; true or not, it does no more than tail sooner."""

log = structlog.get_logger(__name__)


class Hints(Protocol):
    """Carries the newest seq of this replica's commits to the others. Never raises, never waits."""

    def tell(self, seq: int) -> None: ...


class NoHints:
    """Where there is no Redis: the others learn of a commit at their next tail."""

    def tell(self, seq: int) -> None:
        pass


def seq_of(text: object) -> int | None:
    """What a hint says, None when it is none: whoever can connect can send anything."""
    if not isinstance(text, str) or _SEQ.fullmatch(text) is None:
        metrics.hints_received.labels("garbage").inc()
        return None
    metrics.hints_received.labels("seq").inc()
    return int(text)


async def keep_listening(
    follow: Callable[[], Awaitable[None]], listening: asyncio.Event, source: str, *usual: type[Exception]
) -> None:
    """Calls `follow`, which sets `listening` once it would hear a hint, and calls it anew when it fails: after a wait
    that grows while it has not come that far. `usual` are errors of a `source` that is away. It ends when cancelled."""
    trouble: tuple[type[Exception], ...] = (OSError, TimeoutError, *usual)
    wait_s = _RETRY_FIRST_S
    while True:
        try:
            await follow()
        except trouble as error:
            log.info("no hints come; tails go on as they are", source=source, error=str(error))
        except Exception:
            log.exception("listening for hints failed; trying again", source=source)
        if listening.is_set():
            wait_s = _RETRY_FIRST_S
        listening.clear()
        metrics.hint_failures.labels("listen").inc()
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(wait_s * 2, _RETRY_MAX_S)


class RedisHints:
    """`Hints` over publish and subscribe, on two connections of its own; start it, end it with `close`.

    `hinted` is called with every seq that arrives, this replica's own among them.
    """

    def __init__(self, url: str, hinted: Hinted) -> None:
        self._hinted = hinted
        self._client = Redis.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_S * 4,
            retry=Retry(NoBackoff(), 0),
        )
        self._breaker = Breaker()
        self._untold = 0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = asyncio.Event()
        """Set while this replica would hear a hint."""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._send(), name="send hints"),
            asyncio.create_task(
                keep_listening(self._follow, self.listening, "redis", RedisError), name="listen for hints"
            ),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._client.aclose()

    def tell(self, seq: int) -> None:
        self._untold = max(self._untold, seq)
        self._news.set()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            seq, self._untold = self._untold, 0
            if seq == 0 or not self._breaker.allow():
                continue
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._client.publish(CHANNEL, str(seq))
            except (RedisError, OSError, TimeoutError):
                self._breaker.failed()
                metrics.hint_failures.labels("send").inc()
            except asyncio.CancelledError:
                self._breaker.cancelled()
                raise
            except Exception:
                self._breaker.failed()
                metrics.hint_failures.labels("send").inc()
                log.exception("a hint could not be sent")
            else:
                self._breaker.succeeded()
                metrics.hints_sent.inc()

    async def _follow(self) -> None:
        async with self._client.pubsub() as subscriber:
            async with asyncio.timeout(SILENCE_S):
                await subscriber.subscribe(CHANNEL)
            await self._receive(subscriber)

    async def _receive(self, subscriber: PubSub) -> None:
        """Until the connection fails. Raises `TimeoutError` for one that has stopped answering."""
        asked = False
        while True:
            message = await subscriber.get_message(timeout=SILENCE_S)
            if message is None:
                if asked:
                    raise TimeoutError("redis does not answer a ping")
                asked = True
                async with asyncio.timeout(SILENCE_S):
                    await subscriber.ping()
                continue
            asked = False
            if message["type"] == "subscribe":
                self.listening.set()
            elif message["type"] == "message":
                self._take(message["data"])
                await asyncio.sleep(QUIET_S)

    def _take(self, data: object) -> None:
        seq = seq_of(data.decode("latin-1") if isinstance(data, bytes) else data)
        if seq is not None:
            self._hinted(seq)
