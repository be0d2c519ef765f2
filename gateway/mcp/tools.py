"""Tools over MCP: the packages' own, and five stable ones for clients that cache their list."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import mcp_types as types
import msgspec
from mcp.shared.exceptions import MCPError
from pydantic import Field

from gateway.envelope import Reply, reply, write_meta
from gateway.mcp import results, tasks, uris
from gateway.mcp.context import RequestContext, answering, cacheable, caller_of, level_of, principal_of
from gateway.mcp.dialogue import Questions, converse
from gateway.mcp.legacy import LegacySessions
from gateway.mcp.skills import DIGEST_META, VERSION_META
from gateway.mcp.tasks import TaskHandlers
from gateway.operations import cache, incidents, search, skills
from gateway.operations import tools as tool_operations
from gateway.operations.table import Context, JsonObject, Params, parse
from gateway.principal import Principal, Scope
from gateway.replica import Replica
from services.caller import Caller
from services.failures import NotFound, ServiceError
from services.models import SKILL_ID_PATTERN
from services.skills.catalog import served_file
from services.skills.tools import CallableTool


class LoadSkill(Params):
    skill: str = Field(pattern=SKILL_ID_PATTERN, description="The id that search_skills gave, `owner/name`.")
    version: int | None = Field(None, ge=1, description="The active version when absent.")


class ReadSkillFile(LoadSkill):
    path: str = Field(description="The file's path in the skill.", examples=["references/checklist.md"])


class CallByName(Params):
    tool: str = Field(description="The tool's name, as tools/list or load_skill gave it.")
    arguments: JsonObject = Field(default_factory=dict)


class MetaTool(NamedTuple):
    """A tool of the server itself; it stays the same whatever is published."""

    description: str
    params: type[Params]
    run: Callable[[Context, Any], Awaitable[Reply]]
    scope: Scope = "read"


async def _load_skill(context: Context, params: LoadSkill) -> Reply:
    replica = context.replica
    look = partial(replica.catalog.version, params.skill, params.version, context.principal.viewer.sees)
    skill, version = await replica.seek(context.level, look)
    async with replica.invocations.logged(context.caller, "load_skill", skill, version, {}):
        data = await skills.content(context, served_file(version, uris.SKILL_MD))
    loaded = {
        "id": skill.id,
        "version": version.version,
        "digest": version.digest,
        "instructions": data.decode("utf-8"),
        "files": [entry.path for entry in version.manifest if entry.path != uris.SKILL_MD],
        "tools": [tool.name for tool in replica.tools.of(skill)] if skill.active == version else [],
    }
    return reply(loaded)


async def _read_skill_file(context: Context, params: ReadSkillFile) -> Reply:
    owner, name = params.skill.split("/")
    file = skills.ReadFile(owner=owner, name=name, path=params.path, version=params.version)
    return await skills.read_file(context, file)


async def _call_tool(context: Context, params: CallByName) -> Reply:
    call = tool_operations.CallTool(tool=params.tool, arguments=params.arguments)
    return await tool_operations.call_tool(context, call)


META_TOOLS = {
    "search_skills": MetaTool(
        "Find skills for a task, by meaning. `token_budget` bounds what the answer costs.",
        search.SearchSkills,
        search.search_skills,
    ),
    "load_skill": MetaTool("The instructions of a skill, its files and its tools.", LoadSkill, _load_skill),
    "read_skill_file": MetaTool("A file of a skill.", ReadSkillFile, _read_skill_file),
    "call_tool": MetaTool("Call a tool of a skill by its name.", CallByName, _call_tool, "invoke"),
    "record_feedback": MetaTool(
        "Whether a solution that a failed call named helped; solutions that help are named first.",
        incidents.ReportOutcome,
        incidents.report_outcome,
        "invoke",
    ),
    "check_operation": MetaTool(
        "Whether a call is known to fail: `none`, `warning` or `block`, with what helped before.",
        incidents.CheckOperation,
        incidents.check_operation,
    ),
    **{
        name: MetaTool(operation.summary, operation.params, operation.run, operation.scope)
        for name, operation in cache.BY_NAME.items()
        if name != "cache_stats"
    },
}
# Answered within one turn or so of the loop: they need neither progress nor a look-out for clients that leave.
QUICK_TOOLS = frozenset(META_TOOLS) - {"call_tool", "force_skill_reload", "trigger_hot_reload"}
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

    async def list_tools(
        self,
        context: RequestContext,
        params: types.PaginatedRequestParams | None,  # noqa: ARG002  # one page holds all
    ) -> dict[str, Any]:
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


async def call_meta(context: Context, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of one of the server's own tools, parts of it encoded; it fails as others do, within its result."""
    tool = META_TOOLS[name]
    try:
        context.principal.require(tool.scope)
        answer = await tool.run(context, parse(tool.params, arguments))
    except ServiceError as error:
        return results.failed(error)
    content = results.reply_content(answer.data)
    meta = write_meta(answer)
    return {**content, "_meta": meta} if meta else content


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
