"""`subscriptions/listen` of the 2026-07-28 wire, for thousands of streams.

A notice is encoded once for its kind; a stream adds its own id. Nothing is queued: what a stream
still has to be told is a set of kinds and of the URIs it asked for. A stream has no task that wakes
for each notice: whoever tells them all takes each `send` one step, which writes the frame unless
the client does not read. What is not read within `SLOW_S` ends its stream; the client listens anew
and reads again, as the protocol has it (there is no replay).
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from starlette.types import Message, Receive, Send

from gateway.mcp.notices import Notices, Seen
from gateway.mcp.uris import watched
from gateway.principal import Principal
from notifier.events import Viewer
from services import metrics
from services.clock import Monotonic, monotonic_s
from services.failures import Exhausted

STREAMS_MAX = 10_000
# One caller may take many, and leaves room for others.
STREAMS_OF_ONE_MAX = 5_000
URIS_MAX = 1_000
TASKS_MAX = 100
KEEPALIVE_S = 15.0
SLOW_S = 30.0

_KEEPALIVE = b": ping\r\n\r\n"
_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

_SUBSCRIPTION = b'"_meta":{"io.modelcontextprotocol/subscriptionId":'
_MESSAGE = b'event: message\r\ndata: {"jsonrpc":"2.0",'
_TAIL = b"}}}\r\n\r\n"
_HEADS = {
    kind: _MESSAGE + b'"method":"notifications/%s/list_changed","params":{' % kind.encode() + _SUBSCRIPTION
    for kind in ("tools", "prompts", "resources")
}
_UPDATED = _MESSAGE + b'"method":"notifications/resources/updated","params":{"uri":%s,' + _SUBSCRIPTION
_ACKNOWLEDGED = (
    _MESSAGE
    + b'"method":"notifications/subscriptions/acknowledged","params":{"notifications":%s,'
    + _SUBSCRIPTION
    + b"%s"
    + _TAIL
)
_ENDED = _MESSAGE + b'"result":{"resultType":"complete",' + _SUBSCRIPTION + b'%s}},"id":%s}\r\n\r\n'

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


def task_head(task: dict[str, Any]) -> bytes:
    """Of the notice that a task is so now."""
    return _MESSAGE + b'"method":"notifications/tasks","params":' + _encode(task)[:-1] + b"," + _SUBSCRIPTION


class Filter(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What a client asks to be told."""

    tools_list_changed: bool = False
    prompts_list_changed: bool = False
    resources_list_changed: bool = False
    resource_subscriptions: list[str] = msgspec.field(default_factory=list)
    task_ids: list[str] = msgspec.field(default_factory=list)

    def kinds(self) -> frozenset[str]:
        wanted = {
            "tools": self.tools_list_changed,
            "prompts": self.prompts_list_changed,
            "resources": self.resources_list_changed,
        }
        return frozenset(kind for kind, is_wanted in wanted.items() if is_wanted)

    def honoured(self) -> bytes:
        """As the acknowledgement says it: what is not asked for is left out."""
        asked = {f"{kind}ListChanged": True for kind in ("tools", "prompts", "resources") if kind in self.kinds()}
        uris = {"resourceSubscriptions": self.resource_subscriptions} if self.resource_subscriptions else {}
        tasks = {"taskIds": self.task_ids} if self.task_ids else {}
        return _encode({**asked, **uris, **tasks})


class _Stream:
    """`due` holds frames that could not be written yet, in order and each once; `slow_since_s` is 0
    while the client reads."""

    __slots__ = (
        "due",
        "id",
        "is_given_up",
        "is_open",
        "kinds",
        "on_end",
        "principal",
        "send",
        "slow_since_s",
        "tasks",
        "uris",
    )

    def __init__(
        self,
        request_id: bytes,
        wanted: Filter,
        principal: Principal,
        send: Send,
        on_end: Callable[[], None] | None,
    ) -> None:
        self.id = request_id
        self.kinds = wanted.kinds()
        self.uris = {uri: watched(uri) for uri in wanted.resource_subscriptions}
        self.tasks = frozenset(wanted.task_ids)
        self.principal = principal
        self.send = send
        self.on_end = on_end
        self.is_open = False
        self.is_given_up = False
        self.due: dict[bytes, None] = {}
        self.slow_since_s = 0.0

    def wanted(self, seen: Seen) -> list[bytes]:
        """Heads of the frames for this stream; its id and `_TAIL` follow each."""
        heads = [_HEADS[kind] for kind in seen.lists if kind in self.kinds]
        if self.uris and seen.updated:
            heads += [_UPDATED % _encode(uri) for uri, what in self.uris.items() if what in seen.updated]
        return heads


class ListenStreams:
    """All streams of one replica. `tell` and `close` are plain calls; `keep_alive` is due every `KEEPALIVE_S`."""

    def __init__(
        self, *, streams_max: int = STREAMS_MAX, of_one_max: int = STREAMS_OF_ONE_MAX, clock: Monotonic = monotonic_s
    ) -> None:
        self._streams_max = streams_max
        self._of_one_max = of_one_max
        self._clock = clock
        self._streams: dict[_Stream, None] = {}
        self._of_one: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._streams)

    def admit(self, wanted: Filter, principal: Principal) -> None:
        """Raises `Exhausted`."""
        if len(self._streams) >= self._streams_max:
            raise Exhausted(f"this replica has {self._streams_max} listen streams", code="too_many_streams")
        if self._of_one[principal.id] >= self._of_one_max:
            raise Exhausted(f"you have {self._of_one_max} listen streams here", code="too_many_streams")
        if len(wanted.resource_subscriptions) > URIS_MAX:
            raise Exhausted(f"a stream watches at most {URIS_MAX} resources", code="too_many_watched")
        if len(wanted.task_ids) > TASKS_MAX:
            raise Exhausted(f"a stream watches at most {TASKS_MAX} tasks", code="too_many_watched")

    async def serve(
        self,
        request_id: bytes,
        wanted: Filter,
        principal: Principal,
        receive: Receive,
        send: Send,
        task_states: Callable[[], Awaitable[Sequence[bytes]]] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """One admitted stream, from its acknowledgement until the client leaves or it is ended. The tasks it
        watches must be its principal's; `task_states` are their frames now, which it is told first: a task
        may be over before anybody listens. `on_end` is called when nothing more will be sent."""
        stream = _Stream(request_id, wanted, principal, send, on_end)
        # Before the acknowledgement: what changes meanwhile is held back, not lost.
        self._streams[stream] = None
        self._of_one[principal.id] += 1
        metrics.mcp_listen_streams.set(len(self._streams))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send(_part(_ACKNOWLEDGED % (wanted.honoured(), request_id)))
            if task_states is not None:
                stream.due = dict.fromkeys(await task_states()) | stream.due
            stream.is_open = True
            self._write(stream)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._forget(stream)

    def tell(self, notices: Notices) -> None:
        seen_by: dict[Viewer, Seen] = {}
        for stream in list(self._streams):
            viewer = stream.principal.viewer
            seen = seen_by.get(viewer)
            if seen is None:
                seen = seen_by[viewer] = notices.seen_by(viewer)
            heads = stream.wanted(seen)
            if heads:
                stream.due.update(dict.fromkeys(heads))
                self._write(stream)

    def watched_tasks(self) -> set[str]:
        return {task for stream in self._streams for task in stream.tasks}

    def tell_tasks(self, heads: Mapping[str, bytes]) -> None:
        """`heads` of frames by task: `task_head` makes them."""
        for stream in list(self._streams):
            wanted = [heads[task] for task in stream.tasks if task in heads]
            if wanted:
                stream.due.update(dict.fromkeys(wanted))
                self._write(stream)

    def keep_alive(self) -> None:
        """Tells proxies that all are alive, and ends those whose clients have not read for long."""
        now_s = self._clock()
        for stream in list(self._streams):
            if stream.is_given_up:
                self._end(stream)
            elif stream.due:
                self._write(stream)
            elif stream.is_open:
                self._step(stream, _part(_KEEPALIVE))
            if stream.slow_since_s and now_s - stream.slow_since_s > SLOW_S and not stream.is_given_up:
                metrics.mcp_listen_ended.labels("slow").inc()
                stream.is_given_up = True
                stream.due.clear()
                if stream.on_end is not None:
                    self._forget(stream)  # whoever sends hears of it
                # Else the client is told that it is over once it reads; the kernel gives up one that never does.

    def close(self) -> None:
        """Ends all with their final frame."""
        for stream in list(self._streams):
            metrics.mcp_listen_ended.labels("closing").inc()
            self._end(stream)
            self._forget(stream)

    def _end(self, stream: _Stream) -> None:
        """With the final frame; it stays while that cannot be written."""
        if self._step(stream, _part(_ENDED % (stream.id, stream.id), more=False)):
            self._forget(stream)

    def _write(self, stream: _Stream) -> None:
        if stream.is_open and stream.due and not stream.is_given_up:
            frames = b"".join(head + stream.id + _TAIL for head in stream.due)
            if self._step(stream, _part(frames)):
                stream.due.clear()

    def _step(self, stream: _Stream, message: Message) -> bool:
        """Sends without waiting; False when the transport would have to wait for the client."""
        sending = _sent(stream.send, message)
        try:
            sending.send(None)
        except StopIteration:
            stream.slow_since_s = 0.0
            return True
        except Exception:
            metrics.notice_failures.labels("mcp").inc()
            log.exception("a listen stream could not be written")
            self._forget(stream)
            return True
        sending.close()
        stream.slow_since_s = stream.slow_since_s or self._clock()
        return False

    def _forget(self, stream: _Stream) -> None:
        if self._streams.pop(stream, stream) is None:
            self._of_one[stream.principal.id] -= 1
            if not self._of_one[stream.principal.id]:
                del self._of_one[stream.principal.id]
            metrics.mcp_listen_streams.set(len(self._streams))
            if stream.on_end is not None:
                stream.on_end()


async def _sent(send: Send, message: Message) -> None:
    await send(message)


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
