"""One key of the cache, followed live: what each read of it met in which tier."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import StreamingResponse

from gateway.principal import Principal
from gateway.replica import Replica
from notifier.events import sse_frame
from services.cache.trace import TraceEvent

EVENTS_MAX = 256
HEARTBEAT_S = 15.0
# How soon a stream that nothing comes on learns that the service is ending.
_LOOK_S = 0.5


def trace_response(replica: Replica, principal: Principal, key: str) -> StreamingResponse:
    """Server-sent events: `hello`, then one for each thing that happens to `key` in this replica. Of
    more than `EVENTS_MAX` that wait for a slow client, the oldest are dropped and counted in `lost`."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_events(replica, principal, key), media_type="text/event-stream", headers=headers)


async def _events(replica: Replica, principal: Principal, key: str) -> AsyncIterator[bytes]:
    waiting: asyncio.Queue[TraceEvent] = asyncio.Queue(EVENTS_MAX)
    lost = 0

    def note(event: TraceEvent) -> None:
        nonlocal lost
        if waiting.full():
            waiting.get_nowait()
            lost += 1
        waiting.put_nowait(event)

    # Without topics; it is there so that this stream ends with all others.
    stream = replica.notifier.open(principal.viewer, "trace")
    quiet_s = 0.0
    try:
        with replica.cache.trace(key, note):
            yield sse_frame(msgspec.json.encode({"key": key, "replica": replica.id}), event="hello")
            while stream.close_code is None:
                try:
                    async with asyncio.timeout(_LOOK_S):
                        event = await waiting.get()
                except TimeoutError:
                    quiet_s += _LOOK_S
                    if quiet_s >= HEARTBEAT_S:
                        quiet_s = 0.0
                        yield b":\n\n"
                    continue
                quiet_s = 0.0
                yield sse_frame(msgspec.json.encode({**msgspec.structs.asdict(event), "lost": lost}))
    finally:
        stream.close()
