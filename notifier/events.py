"""What is sent: events of the log, states, resets, each encoded at most once per wire form."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import msgspec
from msgspec import Raw

ResetReason = Literal["trimmed", "epoch", "tag", "ahead", "unknown", "slow"]
# Whose states a subscriber sees: this replica's alone, all replicas', or what the lost link had brought.
Coverage = Literal["local", "fleet", "degraded"]


class LogRow(Protocol):
    """A committed row of the change log; `data` is JSON, `prev` is empty for the first row of a stream."""

    @property
    def id(self) -> str: ...
    @property
    def prev(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def visibility(self) -> str: ...
    @property
    def at(self) -> str: ...
    @property
    def data(self) -> bytes: ...


class Owned(Protocol):
    """Something that is public, or private to its owner."""

    @property
    def owner(self) -> str: ...
    @property
    def visibility(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Viewer:
    """Whose eyes a stream is for; `owners` None sees everything."""

    owners: frozenset[str] | None

    def sees(self, thing: Owned) -> bool:
        return self.owners is None or thing.visibility == "public" or thing.owner in self.owners


class Cursor(NamedTuple):
    """A place in the log: everything up to `seq` is known; `tag` names the history that led there."""

    epoch: str
    seq: int
    tag: str

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Reads `<epoch>-<seq>-<8 hex>`; raises ValueError for anything else."""
        parts = text.rsplit("-", 2)
        if len(parts) != 3:
            raise ValueError(f"not a position: {text[:80]!r}")
        epoch, seq, tag = parts
        # isdecimal() also takes other scripts' digits, which would make two spellings of one position.
        if not epoch or not (seq.isascii() and seq.isdecimal()) or len(seq) > 18 or not _is_tag(tag):
            raise ValueError(f"not a position: {text[:80]!r}")
        return cls(epoch, int(seq), tag)


def _is_tag(text: str) -> bool:
    return len(text) == 8 and all(char in "0123456789abcdef" for char in text)


class Frame:
    """Something to send. `json` is its content, `method` its JSON-RPC notification."""

    method = b"event"
    json: bytes

    @property
    def message(self) -> bytes:
        """The JSON-RPC notification."""
        return b'{"jsonrpc":"2.0","method":"%s","params":%s}' % (self.method, self.json)

    @cached_property
    def ws(self) -> bytes:
        """The notification as a WebSocket frame."""
        return websocket_frame(self.message)

    @cached_property
    def text(self) -> str:
        """The notification for a server that frames messages itself."""
        return self.message.decode()

    @cached_property
    def sse(self) -> bytes:
        return sse_frame(self.json)


class Event(Frame):
    """A row of the log as every subscriber gets it, and the fields that decide who does."""

    def __init__(self, row: LogRow) -> None:
        self.id = row.id
        self.seq = row.seq
        self.topic = row.topic
        self.kind = row.kind
        self.owner = row.owner
        self.visibility = row.visibility
        head = {"id": row.id, "prev": row.prev, "topic": row.topic, "kind": row.kind, "at": row.at}
        self.json = _spliced(head, row.data)
        self.size = 2 * len(self.json)  # it is kept as JSON and, once sent, in the form of a transport

    @cached_property
    def sse(self) -> bytes:
        return sse_frame(self.json, event_id=self.id)


class State(msgspec.Struct, frozen=True, array_like=True):
    """The latest value of (topic, key), as replicas tell each other. `number` grows with every state that `replica`
    makes; a state whose key is its replica's id speaks of that replica, and goes with it."""

    replica: str
    number: int
    topic: str
    key: str
    kind: str
    at: str
    data: Raw
    owner: str
    visibility: str

    @property
    def is_of_replica(self) -> bool:
        return self.key == self.replica

    @property
    def is_gone(self) -> bool:
        return self.kind.endswith(".gone")


class StateEvent(Frame):
    """A state as subscribers get it when it is new. It has no `id`: a state is replaced, not resumed.

    `version` is its place among the states of the replica that sends it, which made it itself if `is_own`.
    """

    def __init__(self, version: int, state: State, coverage: Coverage, *, is_own: bool) -> None:
        self.version = version
        self.state = state
        self.topic = state.topic
        self.owner = state.owner
        self.visibility = state.visibility
        self.json = _state_json(state, coverage, is_own=is_own, is_snapshot=False)
        self._is_own = is_own
        self._snapshot: tuple[Coverage, Frame] | None = None

    def snapshot(self, coverage: Coverage) -> Frame:
        """The same for a subscriber that joins after it was made; once encoded, for all of them."""
        if self._snapshot is None or self._snapshot[0] != coverage:
            frame = Frame()
            frame.json = _state_json(self.state, coverage, is_own=self._is_own, is_snapshot=True)
            self._snapshot = coverage, frame
        return self._snapshot[1]


def _state_json(state: State, coverage: Coverage, *, is_own: bool, is_snapshot: bool) -> bytes:
    head = {
        "topic": state.topic,
        "key": state.key,
        "kind": state.kind,
        "at": state.at,
        "state_id": f"{state.replica}-{state.number}",
        "own": is_own,
        "coverage": coverage,
        "snapshot": is_snapshot,
    }
    return _spliced(head, bytes(state.data))


class Reset(Frame):
    """The stream cannot go on without a gap: read the snapshot, then go on from `position`."""

    method = b"reset"

    def __init__(self, reason: ResetReason, position: str, snapshot: str) -> None:
        self.reason = reason
        self.position = position
        self.json = msgspec.json.encode({"reason": reason, "position": position, "snapshot": snapshot})

    @cached_property
    def sse(self) -> bytes:
        return sse_frame(self.json, event="reset", event_id=self.position)


def websocket_frame(payload: bytes) -> bytes:
    """A whole text message as a server sends it: final, not masked (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked HTTP/1.1 body (RFC 9112 section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def sse_frame(data: bytes, *, event: str = "", event_id: str = "", retry_ms: int | None = None) -> bytes:
    """One server-sent event. `data` must be JSON, which has no line breaks once they are taken out of its layout."""
    head = ""
    if event:
        head += f"event: {event}\n"
    if event_id:
        head += f"id: {event_id}\n"
    if retry_ms is not None:
        head += f"retry: {retry_ms}\n"
    return b"%sdata: %s\n\n" % (head.encode(), data)


def _spliced(head: Mapping[str, object], data: bytes) -> bytes:
    # A stored body may be laid out over several lines; a line break would end an SSE field early.
    # JSON strings hold no raw line breaks, so outside of them they are mere layout.
    flat = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b'%s,"data":%s}' % (msgspec.json.encode(head)[:-1], flat)
