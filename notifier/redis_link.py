"""The link between replicas over Redis: publish and subscribe on one channel, nothing stored.

Nobody waits for it. A replica hears its own messages as well, at least one every `BEAT_S`; when it does not, or a send
fails, the link is down, subscribers are told (`Coverage`), and it is tried again until it is up.
"""

import asyncio
import random

import redis.asyncio as redis
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from notifier import metrics
from notifier.fleet import Fleet

CHANNEL = "skillwire:main:states"
BEAT_S = 2.0
_ANSWER_S = 1.0
_SILENCE_S = 5.0
# Between two sends: what changes meanwhile is conflated.
_QUIET_S = 0.02
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 2.0

log = structlog.get_logger(__name__)


class RedisLink:
    """Start it, end it with `close`; `url` is `redis://...` or `unix:///path`."""

    def __init__(self, url: str, fleet: Fleet) -> None:
        self._fleet = fleet
        self._client = redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=_ANSWER_S,
            retry=Retry(NoBackoff(), 0),  # a retry inside the client would hide that messages were missed
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._fleet.link_down()
        self._task = asyncio.create_task(self._run(), name="link to the fleet")

    async def close(self) -> None:
        """Says farewell, if anybody listens."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._fleet.coverage == "fleet":
            try:
                await self._publish(self._fleet.farewell())
            except (RedisError, OSError, TimeoutError):
                log.info("left without a farewell to the other replicas")
        self._fleet.close()
        await self._client.aclose()

    async def _run(self) -> None:
        wait_s = _RETRY_FIRST_S
        while True:
            try:
                async with self._client.pubsub() as subscriber:
                    async with asyncio.timeout(_ANSWER_S):
                        await subscriber.subscribe(CHANNEL)
                        await self._confirmed(subscriber)
                    wait_s = _RETRY_FIRST_S
                    self._fleet.link_up()
                    log.info("states are exchanged with the other replicas")
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._send())
                        group.create_task(self._receive(subscriber))
            except* (RedisError, OSError, TimeoutError) as errors:
                log.info("states of this replica only", errors=[str(error) for error in errors.exceptions])
            except* Exception:
                log.exception("the link to the other replicas failed; trying again")
            self._fleet.link_down()
            metrics.fleet_failures.inc()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, _RETRY_MAX_S)

    async def _confirmed(self, subscriber: PubSub) -> None:
        while (message := await subscriber.get_message(timeout=_ANSWER_S)) is None or message["type"] != "subscribe":
            pass

    async def _send(self) -> None:
        while True:
            for message in self._fleet.messages():
                await self._publish(message)
            await asyncio.sleep(_QUIET_S)
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._fleet.news.wait()
            except TimeoutError:
                continue  # a message without states: still here

    async def _publish(self, message: bytes) -> None:
        async with asyncio.timeout(_ANSWER_S):
            await self._client.publish(CHANNEL, message)
        metrics.fleet_messages.labels("sent").inc()

    async def _receive(self, subscriber: PubSub) -> None:
        """Until the connection fails. Raises `TimeoutError` when not even this replica's own messages come."""
        while (message := await subscriber.get_message(timeout=_SILENCE_S)) is not None:
            if message["type"] == "message":
                self._fleet.take(message["data"])
        raise TimeoutError("redis is silent")
