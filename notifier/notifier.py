"""The one way news leaves this process: committed rows and live states go in, streams come out."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import structlog

from notifier.close_codes import SHUTDOWN
from notifier.events import LogRow, State, Viewer
from notifier.fleet import Fleet
from notifier.history import HistoryReader
from notifier.hub import Hub
from notifier.ledger import DeliveryLedger
from notifier.pulse import Pulse
from notifier.ring import LogPosition, LogSnapshot
from notifier.stream import Stream
from notifier.subscription import Subscription
from notifier.tasks import OwnedTasks
from notifier.wire import Wire

log = structlog.get_logger(__name__)

# How fast clients may come back after a shutdown: half of what one core was measured to accept
# (2.4-4.2 k WebSocket handshakes a second, research/push.md, 2026-11-21), up to a patience of 20 s.
_RECONNECTS_PER_S = 2000
_RECONNECT_SPREAD_MAX_S = 20.0

HEARTBEAT_S = 15.0
STALL_S = 30.0


class UnifiedNotifier:
    """Owns the hub and every open stream; `close` it before the server drains its connections.

    `position` is where the log stood when the caller started to follow it: `apply` must bring every row
    after that. `events_max` rows of `bytes_max` are kept in memory, older ones are read through `history`. A stream
    whose client takes nothing for `stall_s` is ended. `replica` names this process among those of the fleet.
    """

    def __init__(
        self,
        history: HistoryReader,
        position: LogPosition,
        *,
        utc_now: Callable[[], str],
        events_max: int = 16_384,
        bytes_max: int = 32 * 1024 * 1024,
        subscribers_max: int = 10_000,
        heartbeat_s: float = HEARTBEAT_S,
        stall_s: float = STALL_S,
        replica: str = "local",
    ) -> None:
        self._hub = Hub(history, position, events_max=events_max, bytes_max=bytes_max, utc_now=utc_now, replica=replica)
        self.fleet = Fleet(self._hub)
        self._subscribers_max = subscribers_max
        self._pulse = Pulse(heartbeat_s)
        self.tasks = OwnedTasks()
        self.stall_s = stall_s

    @property
    def replica(self) -> str:
        return self._hub.replica

    @property
    def position(self) -> str:
        """The id of the newest row that was applied."""
        return self._hub.position

    @property
    def ledger(self) -> DeliveryLedger:
        return self._hub.ledger

    @property
    def presence(self) -> Mapping[str, int]:
        """Open streams by transport."""
        return Counter(subscription.transport for subscription in self._hub.subscriptions)

    @property
    def audiences(self) -> Mapping[str, int]:
        """Streams that are up to date, by topic."""
        return self._hub.presence

    @property
    def is_full(self) -> bool:
        """True while no more streams should be opened; turning one away is kinder than ending another."""
        return len(self._hub.subscriptions) >= self._subscribers_max

    def remember(self, rows: Iterable[LogRow]) -> None:
        """Takes the newest rows up to the position it starts from, before the first stream: clients of a replica that
        was replaced resume without each of them reading the store. Rows that do not end there are left out."""
        self._hub.remember(rows)

    def apply(self, rows: Iterable[LogRow]) -> None:
        """Announces committed rows, in seq order; never blocks."""
        self._hub.apply(rows)

    def restart(self, snapshot: LogSnapshot) -> None:
        """Tells every stream that its history has ended: a `reset`, then what comes after `snapshot`."""
        self._hub.restart(snapshot.position)

    def publish_state(
        self, topic: str, key: str, kind: str, data: bytes, *, owner: str = "", visibility: str = "public"
    ) -> None:
        """Announces the latest value (JSON) of (topic, key), here and to the other replicas of the fleet; never blocks.
        Raises ValueError for a log topic."""
        self.fleet.tell(self._hub.publish_state(topic, key, kind, data, owner=owner, visibility=visibility))

    def take_state(self, state: State) -> None:
        """A state that every replica makes for itself, of a row of the log: its `replica` is the epoch, its `number`
        the seq. Ignored when a newer one is here."""
        self._hub.take_state(state)

    def subscribe(
        self, viewer: Viewer, topics: Iterable[str], since: str | None = None, transport: str = "local"
    ) -> Subscription:
        """Registers at once; the caller closes it. Raises `UnknownTopic`."""
        return self._hub.subscribe(viewer, topics, since, transport)

    def open(self, viewer: Viewer, transport: str) -> Subscription:
        """A stream that has no topics yet; the caller closes it."""
        return self._hub.open(viewer, transport)

    def settle(self, subscription: Subscription, wire: Wire) -> bool:
        """Makes a subscription that is up to date write to `wire` with all others that want the same."""
        return self._hub.settle(subscription, wire)

    def watch(self, stream: Stream) -> None:
        """Gives `stream` heartbeats until it is forgotten."""
        self._pulse.add(stream)

    def forget(self, stream: Stream) -> None:
        self._pulse.discard(stream)

    def retry_ms(self) -> int:
        """A random wait that spreads the reconnects of all open streams."""
        spread_s = min(_RECONNECT_SPREAD_MAX_S, len(self._hub.subscriptions) / _RECONNECTS_PER_S)
        return 250 + int(random.uniform(0, max(0.25, spread_s)) * 1000)

    async def close(self, reason: str = SHUTDOWN.reason, timeout_s: float = 5.0) -> None:
        """Ends every stream so that its client comes back and resumes; returns when they are gone.

        Streams whose client does not read are left behind after `timeout_s`, with a warning. Idempotent.
        """
        self._hub.end_all(SHUTDOWN._replace(reason=reason))
        try:
            async with asyncio.timeout(timeout_s):
                await self._hub.deserted.wait()
        except TimeoutError:
            log.warning("streams left open at shutdown", streams=dict(self.presence))
        await self._pulse.close()
        await self.tasks.close()
