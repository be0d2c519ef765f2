"""Every Prometheus metric, in one place; labels are closed sets."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

REGISTRY = CollectorRegistry()
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"skillwire_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"skillwire_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str) -> Histogram:
    return Histogram(
        f"skillwire_{name}",
        text,
        labels,
        registry=REGISTRY,
        buckets=_BUCKETS_S,
    )


class Answers(Collector):
    """What was answered over HTTP, in plain numbers of the loop's thread, put into form when they are
    asked for: the library's counters take a lock and five calls each, as long as a cached read does."""

    def __init__(self) -> None:
        self.from_lane = 0
        self._by_class = [0] * 6
        self._by_bucket = [0] * (len(_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def count(self, status: int, duration_s: float) -> None:
        """`status` is 0 when the client left before an answer began."""
        self._by_class[status // 100] += 1
        self._by_bucket[bisect_left(_BUCKETS_S, duration_s)] += 1
        self._sum_s += duration_s

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "skillwire_http_requests", "Answers sent, by status class.", labels=("status_class",)
        )
        for first, number in enumerate(self._by_class):
            requests.add_metric((f"{first}xx",), number)
        yield requests
        seconds = HistogramMetricFamily(
            "skillwire_http_request_seconds", "Time from the request line to the end of the answer."
        )
        bounds = [*map(str, map(float, _BUCKETS_S)), "+Inf"]
        seconds.add_metric((), [*zip(bounds, accumulate(self._by_bucket), strict=True)], self._sum_s)
        yield seconds
        lane = "Reads answered from the memory tier before the router."
        yield CounterMetricFamily("skillwire_lane_answers", lane, self.from_lane)


answers = Answers()
REGISTRY.register(answers)
failures = _counter("failures_total", "Answers that carry an error, by its code.", "code")

changes_applied = _counter("changes_applied_total", "Change rows this replica has applied.")
log_seq = _gauge("log_seq", "Newest change this replica has applied.")
log_restarts = _counter("log_restarts_total", "Times the catalog was read anew because the log's history had changed.")
changes_removed = _counter("changes_removed_total", "Old rows removed from the change log by this replica.")
audit_head = _gauge("audit_head", "Newest change the audit log is known here to have.")
audit_lag = _gauge("audit_lag", "Changes applied here that the audit log is not known to have yet.")
audit_failures = _counter(
    "audit_failures_total", "Times the change log could not be sealed, and rows that went before."
)
retention_failures = _counter("retention_failures_total", "Removals of what is old that failed and are tried again.")
versions_pruned = _counter("versions_pruned_total", "Old versions of watched skills removed by this replica.")
invocations_expired = _counter("invocations_expired_total", "Old invocations removed by this replica.")
runs_expired = _counter("runs_expired_total", "Expired runs removed by this replica.")
blobs_swept = _counter("blobs_swept_total", "Blobs removed by this replica because no version names them.")
blob_bytes_swept = _counter("blob_bytes_swept_total", "Their bytes.")
packages_pruned = _counter("packages_pruned_total", "Folders of versions removed because nothing ran there any more.")
tail_failures = _counter("tail_failures_total", "Tails of the change log that failed.")
sink_failures = _counter("sink_failures_total", "Rows a follower of the log could not apply.", "sink")

hints_sent = _counter("hints_sent_total", "Hints about commits of this replica given to Redis.")
hints_received = _counter("hints_received_total", "Hints from Redis or the database, by what they held.", "content")
hint_failures = _counter("hint_failures_total", "Hints not sent, and connections for them lost, by direction.", "at")

notice_failures = _counter("notice_failures_total", "Notices that could not be sent, by who should have them.", "to")

mcp_listen_streams = _gauge("mcp_listen_streams", "Open subscriptions/listen streams.")
mcp_listen_ended = _counter("mcp_listen_ended_total", "Listen streams ended by this side, by reason.", "reason")
mcp_answers = _counter("mcp_answers_total", "Requests to /mcp, by who answered them.", "by")

mcp_forwarded = _counter("mcp_forwarded_total", "Requests handed on to their session's replica, by outcome.", "outcome")

cache_reads = _counter("cache_reads_total", "Cached reads, by the tier that answered.", "tier")
cache_refused = _counter("cache_refused_total", "Cached records refused because a change is newer.", "tier")
cache_l2_unsealed = _counter(
    "cache_l2_unsealed_total", "Records of Redis that were damaged, forged, or sealed with another key."
)
cache_audits = _counter("cache_audits_total", "Hits of L1 compared with the truth, by what came of it.", "result")
cache_l2_errors = _counter("cache_l2_errors_total", "Calls to Redis that failed or timed out.")
cache_l2_open = _gauge("cache_l2_breaker_open", "1 while Redis is being left alone after failures.")
cache_stale_served = _counter(
    "cache_stale_served_total", "Labelled answers from before, by what kept the truth away.", "reason"
)
cache_background_failures = _counter("cache_background_failures_total", "Refreshes and fills that failed unexpectedly.")
cache_l1_evictions = _counter("cache_l1_evictions_total", "Records that had to make room in the memory tier.")
cache_l1_bytes = _gauge("cache_l1_bytes", "Bytes held by the memory tier.")
cache_l1_entries = _gauge("cache_l1_entries", "Entries held by the memory tier.")

write_races_lost = _counter("write_races_lost_total", "Writes planned anew: another replica wrote first.")
aws_failures = _counter("aws_failures_total", "Calls to AWS that did not succeed, each try.", "service", "outcome")
copies_failures = _counter("copies_failures_total", "Readable copies in S3 that were not written, each try.")
copies_forgotten = _counter("copies_forgotten_total", "Changes of readable copies dropped: all are looked through.")
appends_refused = _counter("appends_refused_total", "Writes refused because too many wait for the change log.")
publishes = _counter("publishes_total", "Packages given to the catalog, by outcome.", "outcome")
scan_seconds = _histogram("scan_seconds", "Time of one scan of a watched folder.")
watch_failures = _counter("watch_failures_total", "Scans of a watched folder that failed.")

tool_calls = _counter("tool_calls_total", "Tool calls, by outcome.", "outcome")
tool_call_seconds = _histogram("tool_call_seconds", "Time of a tool call, queue included.")
tool_ranking_failures = _counter("tool_ranking_failures_total", "Countings of the most used tools that failed.")
tool_notices_dropped = _counter(
    "tool_notices_dropped_total", "Progress and logs of tools their clients were slow to take."
)
runs = _counter("runs_total", "Calls that outlived their request: begun, and what became of them.", "status")
run_failures = _counter("run_failures_total", "Unexpected trouble with runs, and outcomes that could not be written.")
presence_failures = _counter("presence_failures_total", "Times other replicas could not be told that this one lives.")
workers = _gauge("workers", "Live worker processes.")
worker_starts = _counter("worker_starts_total", "Worker processes started.")
worker_ends = _counter("worker_ends_total", "Worker processes ended, by reason.", "reason")
worker_calls_reused = _counter("worker_calls_reused_total", "Calls answered by a worker that had answered before.")

invocations_logged = _counter("invocations_logged_total", "Invocation records written.")
invocations_refused = _counter("invocations_refused_total", "Calls refused because the invocation log is full.")

incidents_recorded = _counter("incidents_recorded_total", "Failed calls written as occurrences.", "error_class")
incidents_refused = _counter("incidents_refused_total", "Failed calls not counted: too many incidents wait.")
solution_lookups = _counter("solution_lookups_total", "Failed calls, by the solutions they were told.", "outcome")
firewall_failures = _counter("firewall_failures_total", "Trouble of the error firewall itself that no caller was told.")
calls_blocked = _counter("calls_blocked_total", "Calls refused because of an incident marked `block`.")

index_seq = _gauge("index_seq", "Newest change the search index holds.")
index_failures = _counter("index_failures_total", "Updates of the search index that failed and will be tried again.")
search_seconds = _histogram("search_seconds", "Time of a search.")
search_without_vectors = _counter("search_without_vectors_total", "Searches answered by words alone.")
embed_texts = _counter("embed_texts_total", "Texts turned into vectors.")
