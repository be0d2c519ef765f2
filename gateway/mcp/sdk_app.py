"""The SDK's application, imported and opened while the replica answers already.

Its import is a quarter of a start, and the edge answers most requests without it. One that the edge leaves to it
and that comes sooner waits until it is there.
"""

import asyncio
from importlib import import_module

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.lean import unbuilt, uncollected
from gateway.mcp.push import McpPush
from gateway.replica import Replica

log = structlog.get_logger(__name__)


class SdkApp:
    """An ASGI application. `begin` it once the replica answers; `close` ends its sessions."""

    def __init__(self, replica: Replica, push: McpPush, state_key: bytes) -> None:
        """`state_key` as for `SkillServer`."""
        self._replica = replica
        self._push = push
        self._state_key = state_key
        self._opened: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
        self._is_over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what opening has raised."""
        app = await asyncio.shield(self._opened)  # a client that leaves must not cancel it for the others
        await app(scope, receive, send)

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="mcp sdk")

    async def opened(self) -> None:
        """Returns when it is open, or cannot be."""
        await asyncio.wait([self._opened])

    async def close(self) -> None:
        self._is_over.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        """The SDK's sessions are tasks of a group that one task has to open and close."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, _import)
            from gateway.mcp.sdk.server import serving  # noqa: PLC0415  # as has just been done

            async with serving(self._replica, self._push, self._state_key) as app:
                self._opened.set_result(app)
                await self._is_over.wait()
        except Exception as error:
            log.exception("the SDK of MCP cannot be used")
            self._replica.notices.append("MCP: only what its edge answers by itself is answered; the log says why")
            if not self._opened.done():
                self._opened.set_exception(error)


def _import() -> None:
    """In a thread, so that the loop goes on."""
    with uncollected(), unbuilt():
        import_module("gateway.mcp.sdk.server")
