"""`skillwire stdio`: a replica whose only client is the process that started it.

It shares the data folder with a running service, if there is one: what either publishes, both
announce.
"""

from contextlib import AsyncExitStack

import structlog
from mcp.server.stdio import stdio_server

from gateway.mcp.push import McpPush
from gateway.mcp.questions import questions_of
from gateway.mcp.sdk.server import SkillServer
from gateway.mcp.wire import STATE_SECRET
from gateway.wiring import open_replica
from services.settings import Settings

log = structlog.get_logger(__name__)


async def serve_stdio(settings: Settings) -> None:
    """Speaks MCP on stdin and stdout until stdin ends."""
    push = McpPush()
    async with AsyncExitStack() as stack:
        replica = await stack.enter_async_context(open_replica(settings, push, asks=questions_of))
        push.start(replica.runs, replica.view)
        stack.push_async_callback(push.close)
        server = SkillServer(replica, push, await replica.store.secret(STATE_SECRET))
        reader, writer = await stack.enter_async_context(stdio_server())
        log.info("speaking MCP on stdio", skills=len(replica.view))
        replica.begin()
        await server.run(reader, writer, server.create_initialization_options())
