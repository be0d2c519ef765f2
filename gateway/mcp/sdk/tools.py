"""Handlers of `tools/*`: the packages' own tools, after those of the server itself."""

from functools import partial
from typing import Any

import mcp_types as types
import msgspec
from mcp.shared.exceptions import MCPError

from gateway.mcp import results
from gateway.mcp.meta_tools import META_TOOLS, call_meta
from gateway.mcp.sdk import tasks
from gateway.mcp.sdk.context import RequestContext, answering, cacheable, caller_of, level_of, one_page, principal_of
from gateway.mcp.sdk.dialogue import Questions, converse
from gateway.mcp.sdk.legacy import LegacySessions
from gateway.mcp.sdk.tasks import TaskHandlers
from gateway.mcp.wire import DIGEST_META, VERSION_META
from gateway.operations.table import Context
from gateway.principal import Principal
from gateway.replica import Replica
from services.caller import Caller
from services.failures import NotFound, ServiceError
from services.skills.tools import CallableTool

_META_LISTED = [
    {"name": name, "description": tool.description, "inputSchema": tool.params.model_json_schema()}
    for name, tool in META_TOOLS.items()
]


class ToolHandlers:
    """Handlers of `tools/*` over one replica."""

    def __init__(self, replica: Replica, sessions: LegacySessions, task_handlers: TaskHandlers) -> None:
        self._replica = replica
        self._tasks = task_handlers
        self._sessions = sessions

    async def list_tools(self, context: RequestContext, params: types.PaginatedRequestParams | None) -> dict[str, Any]:
        one_page(params)
        principal = principal_of(context)
        with answering():
            principal.require("read")
            await self._replica.current(level_of(context))
        viewer, tools = principal.viewer, self._replica.tools
        listed = self._replica.tool_lists.get(
            ("mcp", viewer), lambda: [_listed(tool) for tool in self._replica.ranking.listed(tools.listed(viewer.sees))]
        )
        # A new ranking changes no skill, and yet what is listed.
        revision = max(self._replica.view.revision, tools.revision)
        return cacheable(context, {"tools": [*_META_LISTED, *listed]}, revision=revision)

    def input_schema(self, name: str) -> dict[str, Any] | None:
        """For the SDK, which would otherwise list every tool to find this one's schema on each call."""
        if name in META_TOOLS:
            return META_TOOLS[name].params.model_json_schema()
        tool = self._replica.tools.find(name, lambda _: True)
        return tool.spec.input_schema if tool else None

    async def _find(self, name: str, principal: Principal) -> CallableTool:
        return self._replica.tools.get(name, principal.viewer.sees)

    async def call_tool(self, context: RequestContext, params: types.CallToolRequestParams) -> dict[str, Any]:
        principal = principal_of(context)
        try:
            operation = Context(self._replica, principal, caller_of(context), level_of(context))
            if params.name in META_TOOLS:
                # The SDK takes no encoded parts.
                return _built_in(await call_meta(operation, params.name, params.arguments or {}))
            principal.require("invoke")
            tool = await self._replica.seek(operation.level, partial(self._find, params.name, principal))
            return await self._run(context, tool, params.arguments or {}, operation.caller)
        except Questions as questions:
            return questions.result
        except NotFound as error:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name}") from error
        except ServiceError as error:
            return results.failed(error)

    async def _run(
        self, context: RequestContext, tool: CallableTool, arguments: dict[str, Any], caller: Caller
    ) -> dict[str, Any]:
        if tool.spec.task != "forbidden":
            if tasks.is_declared(context):
                return await self._tasks.call(context, tool, arguments, caller)
            if tool.spec.task == "required":
                raise tasks.not_declared()
        run = partial(self._replica.calls.run, tool, arguments, caller)
        if tool.spec.interactive:
            answer = await converse(context, self._sessions, tool.spec.requires, run)
        else:
            answer = await run()
        return results.answered(
            answer.result, answer.skill, answer.version, answer.digest, is_interactive=tool.spec.interactive
        )


def _built_in(result: dict[str, Any]) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(result))
    return built


def _listed(tool: CallableTool) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "name": tool.name,
        "title": f"{tool.skill.name}: {tool.spec.name}",
        "description": tool.spec.description,
        "inputSchema": tool.spec.input_schema,
        "_meta": {VERSION_META: tool.version.version, DIGEST_META: tool.version.digest},
    }
    if tool.spec.task != "forbidden":
        listed["_meta"]["dev.skillwire/task"] = tool.spec.task
    return listed if tool.spec.output_schema is None else {**listed, "outputSchema": tool.spec.output_schema}
