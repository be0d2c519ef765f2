"""Delivery book-keeping: what subscribers were owed, and what became of it.

At any moment `owed == delivered + sum(undelivered) + what subscriptions still hold`; that is
what "accepted = delivered or counted" means, and `tests/unit/test_notifier_hub.py` checks it.
"""

from collections import Counter
from typing import Literal

from notifier import metrics

LossReason = Literal["conflated", "evicted", "slow", "trimmed", "epoch", "unsubscribed", "closed"]


class DeliveryLedger:
    """`published` counts events; the others count (event, matching subscriber) pairs.

    A replayed event or a state of a snapshot is owed from the moment it is read.
    """

    def __init__(self) -> None:
        self.published = 0
        self.owed = 0
        self.delivered = 0
        self.undelivered: Counter[LossReason] = Counter()

    def add_published(self) -> None:
        self.published += 1
        metrics.events_published.inc()

    def add_delivered(self, count: int, transport: str) -> None:
        if count:
            self.delivered += count
            metrics.events_delivered.labels(transport).inc(count)

    def add_undelivered(self, count: int, reason: LossReason) -> None:
        if count:
            self.undelivered[reason] += count
            metrics.events_undelivered.labels(reason).inc(count)
