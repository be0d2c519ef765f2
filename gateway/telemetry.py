"""The live state topics: `stats`, `health` and `cache` of this replica, for whoever watches it or another one."""

import asyncio

import msgspec
import structlog

from gateway import state
from gateway.replica import Replica
from services import metrics

# Often enough to look alive. It goes on while nobody is subscribed: somebody may be at another replica, and whoever
# subscribes next is given the latest at once.
INTERVAL_S = 2.0

log = structlog.get_logger(__name__)


class Telemetry:
    """Publishes the latest state, at once and from then on; `close` ends its task."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._task = asyncio.create_task(self._run(), name="telemetry")

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._publish()
            except Exception:
                metrics.notice_failures.labels("state").inc()
                log.exception("the live state could not be published")
            await asyncio.sleep(INTERVAL_S)

    async def _publish(self) -> None:
        replica = self._replica
        for topic, value in (
            ("stats", state.status(replica)),
            ("health", await state.health(replica)),
            ("cache", state.cache(replica)),
        ):
            replica.notifier.publish_state(topic, replica.id, f"{topic}.changed", msgspec.json.encode(value))
