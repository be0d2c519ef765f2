"""The invocation log: who called what, which version and digest ran, how it ended.

One task writes batches. A record that was accepted is written: room is reserved before the call
runs, a full log makes callers wait for `WAIT_S` and then refuses them, and `close` flushes.
"""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog

from services import metrics
from services.caller import Caller
from services.clock import monotonic_s, utc_now
from services.failures import ServiceError, Unavailable
from services.models import Invocation, Skill, Version
from services.ports import MetadataStore

QUEUE_MAX = 10_000
BATCH_MAX = 500
WAIT_S = 0.2
ARGUMENTS_BYTES_MAX = 1024
_RETRY_S = 0.5
_SECRET = re.compile(r"secret|token|passw|api_?key|authorization|credential|private", re.IGNORECASE)

log = structlog.get_logger(__name__)


class InvocationLog:
    """Start it with `start`, end it with `close`, which returns once everything is written."""

    def __init__(self, store: MetadataStore, *, queue_max: int = QUEUE_MAX) -> None:
        self._store = store
        self._queue: asyncio.Queue[Invocation] = asyncio.Queue()
        self._room = asyncio.Semaphore(queue_max)
        self._unwritten = 0
        self._all_written = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="invocation-log")

    async def close(self) -> None:
        """Refuses further calls, waits until those under way have ended and are written; the caller
        bounds how long that may take, and what is not written when it is cancelled is lost."""
        self._closing = True
        if self._task is None:
            return
        try:
            while self._unwritten:
                self._all_written.clear()
                await self._all_written.wait()
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._unwritten:
                log.error("invocations are lost: the database did not take them in time", lost=self._unwritten)

    @asynccontextmanager
    async def logged(
        self, caller: Caller, target: str, skill: Skill, version: Version, arguments: Any
    ) -> AsyncIterator[None]:
        """Logs the block as one invocation, however it ends. Raises `Unavailable` before the block
        when there is no room within `WAIT_S`: a call that could not be logged must not run."""
        shown = redacted(arguments)  # now: the tool is given the same object and may change it
        await self._admit()
        started_s = monotonic_s()
        code = "cancelled"
        try:
            yield
            code = ""
        except ServiceError as error:
            code = error.code
            raise
        except Exception:
            code = "internal"
            raise
        finally:
            self._queue.put_nowait(
                Invocation(
                    id=_new_id(),
                    at=utc_now(),
                    caller=caller.id,
                    session=caller.session,
                    transport=caller.transport,
                    target=target,
                    skill_id=skill.id,
                    version=version.version,
                    digest=version.digest,
                    ok=not code,
                    code=code,
                    duration_ms=round((monotonic_s() - started_s) * 1000, 3),
                    arguments=shown,
                )
            )

    async def _admit(self) -> None:
        if self._closing:
            raise Unavailable("the service is shutting down")
        if self._room.locked():
            await self._wait_for_room()
        else:
            await self._room.acquire()  # at once; the timer of a wait would cost more than all the rest
        self._unwritten += 1

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._room.acquire()
        except TimeoutError as error:
            metrics.invocations_refused.inc()
            raise Unavailable("the invocation log is full; try again", code="invocation_log_full") from error

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH_MAX and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            for _ in batch:
                self._room.release()
            self._unwritten -= len(batch)
            if not self._unwritten:
                self._all_written.set()

    async def _write(self, batch: list[Invocation]) -> None:
        while True:
            try:
                await self._store.record(batch)
            except Unavailable as error:
                log.warning("invocations wait for the database", waiting=len(batch), error=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                metrics.invocations_logged.inc(len(batch))
                return


def _new_id() -> str:
    """Sorts by time: newest last."""
    return f"inv-{time.time_ns():016x}-{secrets.token_hex(4)}"


def redacted(arguments: Any) -> str:
    """JSON of the arguments without secrets, at most `ARGUMENTS_BYTES_MAX` bytes."""
    try:
        text = msgspec.json.encode(_without_secrets(arguments))
    except (ValueError, TypeError, RecursionError) as error:
        # Python reads JSON that cannot be written as such: half a surrogate pair, a thousand levels.
        return f"[not shown: {type(error).__name__}]"
    if len(text) > ARGUMENTS_BYTES_MAX:
        return text[: ARGUMENTS_BYTES_MAX - 3].decode(errors="ignore") + "..."
    return text.decode()


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "[redacted]" if _SECRET.search(str(key)) else _without_secrets(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
