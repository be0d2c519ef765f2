"""Ending what was opened: bounded in time, and whatever another part does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import structlog

R = TypeVar("R")
CLOSE_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


def closing(stack: AsyncExitStack, name: str, close: Callable[[], Awaitable[None]]) -> None:
    """Has `close` called at the end, bounded in time; one part's trouble keeps no other from closing."""

    async def closed() -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await close()
        except Exception:
            log.exception("closing failed", part=name)

    stack.push_async_callback(closed)


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, R]) -> AsyncIterator[asyncio.Task[R]]:
    """Runs `work` beside the block, which awaits it or leaves without it."""
    task = asyncio.create_task(work, name="meanwhile")
    try:
        yield task
    finally:
        await ended(task)


async def ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
