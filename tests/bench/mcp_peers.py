"""What the MCP edge is measured beside, one process each.

`python -m tests.bench.mcp_peers KIND PORT_FD TOOLS [SKILLS]`: SKILLS is a folder of them, for those that serve skills.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.providers.skills import SkillsDirectoryProvider
from fastmcp.skills.extension import SkillsExtension
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ToolsListChanged
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "times": {"type": "integer"}}}


def bare(_count: int, _skills: Path | None) -> Any:
    """Answers the bytes it was given with PUT: what sending them costs at the least."""
    held: dict[str, bytes] = {}

    async def answer(request: Request) -> Response:
        if request.method == "PUT":
            held["body"] = await request.body()
            return Response()
        await request.body()
        return Response(held["body"], media_type="application/json")

    return Starlette(routes=[Route("/mcp", answer, methods=["PUT", "POST"])])


def low_level(count: int, skills: Path | None) -> Any:
    tools = [types.Tool(name=f"tool-{at}", description="Repeats a text.", input_schema=SCHEMA) for at in range(count)]

    async def list_tools(*_: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    texts = {f"skill://main/{file.parent.name}/SKILL.md": file.read_text() for file in skills_of(skills)}

    async def read_resource(_: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        text = texts[str(params.uri)]
        content = types.TextResourceContents(uri=params.uri, mime_type="text/markdown", text=text)
        return types.ReadResourceResult(contents=[content])

    bus = InMemorySubscriptionBus()

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name == "change":
            await bus.publish(ToolsListChanged())
        return types.CallToolResult(content=[types.TextContent(type="text", text=json.dumps(params.arguments))])

    server: Server[Any] = Server(
        "low",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_read_resource=read_resource,
        on_subscriptions_listen=ListenHandler(bus, max_subscriptions=10_000),
        get_tool_input_schema=lambda _: SCHEMA,
    )
    return server.streamable_http_app(json_response=True)


def fast(count: int, skills: Path | None) -> Any:
    server = FastMCP("fast")
    if skills is not None:
        provider = SkillsDirectoryProvider(skills, experimental_skills=True)
        server.add_provider(provider)
        server.add_extension(SkillsExtension(providers=[provider]))

    async def repeat(text: str = "", times: int = 1) -> str:  # a plain function would go to a thread
        return text * times

    for at in range(count):
        server.tool(repeat, name=f"tool-{at}", description="Repeats a text.")
    return server.http_app(path="/mcp", json_response=True)


def skills_of(root: Path | None) -> list[Path]:
    return [] if root is None else sorted(root.glob("*/SKILL.md"))


APPS: dict[str, Callable[[int, Path | None], Any]] = {"bare": bare, "low-level SDK": low_level, "FastMCP": fast}


if __name__ == "__main__":
    kind, descriptor, tools, *folder = sys.argv[1:]
    app = APPS[kind](int(tools), Path(folder[0]) if folder else None)
    uvicorn.run(app, fd=int(descriptor), log_level="error", access_log=False)
