"""The answer of a cached read, and what can be said about its age."""

from services.changes.log import DELTA_S, Bound, ChangeFeed
from services.clock import Monotonic


class Read:
    """`tier` is l1, l2 or l3 (loaded now); `bound` says how old the answer may be.

    `stale_reason` is None, or why this is older than was asked for: `log` (the change log does not
    answer), `error` (the load failed), `slow` (the load goes on in the background). `bound.stale`
    is True exactly then.
    """

    __slots__ = ("_bound", "stale_reason", "tier", "value")

    def __init__(self, value: bytes, tier: str, bound: Bound | None, stale_reason: str | None = None) -> None:
        self.value = value
        self.tier = tier
        self.stale_reason = stale_reason
        self._bound = bound

    @property
    def bound(self) -> Bound:
        assert self._bound is not None, "only a hit of L1 works its bound out when asked"
        return self._bound


class HitRead(Read):
    """A hit of L1, given out many times; its `bound` is of the moment it is asked for.

    `sent_s` is when the last tail was sent that found nothing after `asof`.
    """

    __slots__ = ("_clock", "_feed", "asof", "sent_s")

    def __init__(self, value: bytes, feed: ChangeFeed, clock: Monotonic) -> None:
        super().__init__(value, "l1", None)
        self._feed = feed
        self._clock = clock
        self.asof = feed.applied
        self.sent_s = feed.horizon_s - DELTA_S

    @property
    def bound(self) -> Bound:
        sent_s = self.sent_s
        if self._feed.applied == self.asof:
            # Nothing was applied since, so the latest tail speaks for this answer too.
            sent_s = max(sent_s, self._feed.horizon_s - DELTA_S)
        return Bound(self.asof, max(0.0, self._clock() - sent_s), stale=False)
