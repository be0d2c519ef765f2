"""What a stream writes to: one connection's bytes, whoever carries them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from notifier.close_codes import CloseCode
from notifier.events import Frame, http_chunk

# What one write may hold: enough to spare calls, and no more than a transport buffers before it says stop.
BATCH_BYTES = 64 * 1024
# How long a connection that was ended may take to let its last bytes go.
CLOSE_S = 3.0

BEATS_UNANSWERED_MAX = 2

Encode = Callable[[Sequence[Frame]], Any]


class Wire(Protocol):
    """Writing never waits: a client that does not keep up makes the wire call its stream's `paused`, and `resumed`
    once it does. `encode` makes what `write` takes; it is the same function for all wires of one kind, so that frames
    for many are encoded once.
    """

    encode: Encode

    def write(self, payload: Any) -> None: ...

    def post(self, message: bytes) -> None:
        """One message of the stream's own: a JSON-RPC message, or a server-sent event."""
        ...

    def beat(self, message: bytes) -> bool:
        """Posts a heartbeat. False, and nothing was posted, for a client that has let `BEATS_UNANSWERED_MAX` of them
        pass without a sign of life; where clients cannot answer, there is no such client."""
        ...

    def finish(self, close: CloseCode) -> None:
        """Ends the connection behind what was written, and calls the stream's `lost`."""
        ...

    def hold_reading(self) -> None: ...

    def go_on_reading(self) -> None: ...


class Peer(Protocol):
    """The stream as its wire sees it; every method is plain and raises nothing."""

    def receive(self, message: bytes) -> None: ...

    def paused(self) -> None: ...

    def resumed(self) -> None: ...

    def lost(self) -> None:
        """The connection is gone, or about to go: nothing may be written to it any more."""
        ...


def websocket_bytes(frames: Sequence[Frame]) -> bytes:
    return b"".join([frame.ws for frame in frames])


def websocket_texts(frames: Sequence[Frame]) -> tuple[str, ...]:
    return tuple(frame.text for frame in frames)


def sse_bytes(frames: Sequence[Frame]) -> bytes:
    return b"".join([frame.sse for frame in frames])


def sse_chunk(frames: Sequence[Frame]) -> bytes:
    return http_chunk(sse_bytes(frames))
