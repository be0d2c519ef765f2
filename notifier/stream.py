"""One connection's subscription and its wire: together with others while up to date, by a task while behind."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from notifier import metrics
from notifier.close_codes import SILENT, SLOW, UNAVAILABLE, CloseCode
from notifier.subscription import Subscription, SubscriptionEnded
from notifier.tasks import OwnedTasks
from notifier.wire import Wire

log = structlog.get_logger(__name__)

# Few enough that a client that stops in the middle keeps little of them in memory.
_BATCH_EVENTS = 32


class StreamOwner(Protocol):
    """What a stream needs of the notifier."""

    tasks: OwnedTasks
    stall_s: float

    def settle(self, subscription: Subscription, wire: Wire) -> bool: ...

    def retry_ms(self) -> int: ...

    def watch(self, stream: "Stream") -> None: ...

    def forget(self, stream: "Stream") -> None: ...


class Stream:
    """A `Peer` of its wire and the follower of its subscription. `begin` it once; it ends with `lost`."""

    __slots__ = ("_is_open", "_is_over", "_owner", "_resumed", "_stall", "_stop_catching_up", "_subscription", "_wire")

    _wire: Wire

    def __init__(self, owner: StreamOwner, subscription: Subscription) -> None:
        self._owner = owner
        self._subscription = subscription
        self._stop_catching_up: Callable[[], object] | None = None  # while the subscription goes alone
        self._resumed: asyncio.Event | None = None  # while the wire is paused
        self._stall: asyncio.TimerHandle | None = None
        self._is_open = False
        self._is_over = False

    def begin(self, wire: Wire) -> None:
        self._wire = wire
        self._subscription.follower = self
        self._owner.watch(self)
        if self._subscription.close_code is not None:
            self.ended(self._subscription.close_code)
        else:
            self.behind()

    def receive(self, message: bytes) -> None:
        """What a client says; nothing is expected here."""

    def paused(self) -> None:
        if self._is_over or self._resumed is not None:
            return
        self._resumed = asyncio.Event()
        self._stall = asyncio.get_running_loop().call_later(self._owner.stall_s, self._stalled)
        self._wire.hold_reading()
        self._subscription.step_out()

    def resumed(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
            if not self._is_over:
                self._wire.go_on_reading()

    def lost(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.resumed()
        if self._stop_catching_up is not None:
            self._stop_catching_up()
        self._subscription.close()
        self._owner.forget(self)

    def behind(self) -> None:
        if self._stop_catching_up is None and not self._is_over and self._subscription.close_code is None:
            self._stop_catching_up = self._owner.tasks.start(self._catch_up(), "catch up")

    def ended(self, close: CloseCode) -> None:
        self._finish(close)

    def beat(self) -> None:
        """A heartbeat, unless the client has enough to read; the end of one that gives no sign of life."""
        if self._is_open and self._resumed is None and not self._is_over and not self._wire.beat(self._heartbeat()):
            metrics.silent_subscribers.inc()
            self._subscription.end(SILENT)

    async def writable(self) -> None:
        """Returns once the client keeps up, or is gone."""
        while self._resumed is not None:
            await self._resumed.wait()

    def _finish(self, close: CloseCode) -> None:
        if not self._is_over:
            self._wire.post(self._goodbye(close))
            self._wire.finish(close)

    async def _catch_up(self) -> None:
        """Ends when the subscription is up to date, or has ended."""
        try:
            if not self._is_open:
                await self._open()
                self._is_open = True
            while True:
                await self.writable()
                self._subscription.confirm()
                if self._owner.settle(self._subscription, self._wire):
                    return
                frames = await self._subscription.next_batch(_BATCH_EVENTS)
                self._wire.write(self._wire.encode(frames))
        except SubscriptionEnded:
            return  # `ended` has been called
        except Exception:  # the boundary of one subscriber
            # The log could not be read, or a bug of ours: this stream ends, its client resumes elsewhere or later.
            log.exception("stream failed", transport=self._subscription.transport)
            metrics.stream_failures.labels(self._subscription.transport).inc()
            self._subscription.end(UNAVAILABLE)
        finally:
            self._stop_catching_up = None

    def _stalled(self) -> None:
        self._stall = None
        metrics.slow_subscribers.inc()
        self._subscription.end(SLOW)

    async def _open(self) -> None:
        """What comes before the first event."""

    def _heartbeat(self) -> bytes:
        raise NotImplementedError

    def _goodbye(self, close: CloseCode) -> bytes:
        raise NotImplementedError
