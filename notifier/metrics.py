"""The notifier's Prometheus metrics; labels are closed sets."""

from collections.abc import Iterator
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()

Outcome = Literal["ok", "error", "unknown", "invalid", "timeout", "cancelled", "busy"]


class RpcCalls(Collector):
    """Counted without the lock of a `Counter`, which costs a tenth of a call: all calls are of one thread."""

    def __init__(self) -> None:
        self.by_outcome: dict[Outcome, int] = dict.fromkeys(get_args(Outcome), 0)

    def collect(self) -> Iterator[Metric]:
        about = f"Calls over WebSocket, by outcome: {', '.join(self.by_outcome)}."
        family = CounterMetricFamily("skillwire_rpc_calls", about, labels=["outcome"])
        for outcome, count in self.by_outcome.items():
            family.add_metric((outcome,), count)
        yield family


subscribers = Gauge("skillwire_subscribers", "Open streams, by transport.", ["transport"], registry=REGISTRY)
events_published = Counter(
    "skillwire_events_published_total", "Events accepted for fan-out, log rows and states.", registry=REGISTRY
)
events_delivered = Counter(
    "skillwire_events_delivered_total", "Events given to a transport.", ["transport"], registry=REGISTRY
)
events_undelivered = Counter(
    "skillwire_events_undelivered_total",
    "Events a subscriber was owed and did not get: conflated, evicted, slow, trimmed, epoch, unsubscribed, closed.",
    ["reason"],
    registry=REGISTRY,
)
event_resets = Counter(
    "skillwire_event_resets_total", "Streams told to read a snapshot, by reason.", ["reason"], registry=REGISTRY
)
slow_subscribers = Counter(
    "skillwire_slow_subscribers_total", "Streams ended because a send blocked for too long.", registry=REGISTRY
)
silent_subscribers = Counter(
    "skillwire_silent_subscribers_total", "Streams ended because nothing answered their heartbeats.", registry=REGISTRY
)
stream_failures = Counter(
    "skillwire_stream_failures_total",
    "Streams ended by an error of ours, by transport.",
    ["transport"],
    registry=REGISTRY,
)
raw_push = Gauge(
    "skillwire_raw_push", "1 while events are written to transports directly, 0 through ASGI.", registry=REGISTRY
)
at_once_failures = Counter(
    "skillwire_at_once_failures_total",
    "Requests that failed to be answered as soon as they were read, and went on to their route.",
    registry=REGISTRY,
)
rpc_calls = RpcCalls()
REGISTRY.register(rpc_calls)
fleet_replicas = Gauge("skillwire_fleet_replicas", "Other replicas whose states arrive here.", registry=REGISTRY)
fleet_messages = Counter(
    "skillwire_fleet_messages_total",
    "Messages between replicas about their states, by what became of them: sent, taken, garbage.",
    ["outcome"],
    registry=REGISTRY,
)
fleet_failures = Counter(
    "skillwire_fleet_failures_total", "Times that the link between replicas was lost.", registry=REGISTRY
)
