"""Tools over MCP: the packages' own, and five stable ones for clients that cache their list."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import mcp_types as types
import msgspec
from mcp.shared.exceptions import MCPError
from pydantic import Field, ValidationError

from gateway.envelope import Reply, write_meta
from gateway.mcp import uris
from gateway.mcp.context import COMPLETE, RequestContext, answering, cacheable, caller_of, level_of, principal_of
from gateway.mcp.dialogue import Questions, converse
from gateway.mcp.legacy import LegacySessions
from gateway.mcp.ranking import ToolRanking
from gateway.mcp.skills import DIGEST_META, VERSION_META
from gateway.operations import cache, incidents, search, skills, tools
from gateway.operations.table import Context, JsonObject, Params, parse
from gateway.principal import Principal, Scope
from gateway.replica import Replica
from services.failures import NotFound, ServiceError, ToolFailed
from services.models import SKILL_ID_PATTERN
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
    run: Callable[[Context, Any], Awaitable[Any]]
    scope: Scope = "read"


async def _search_skills(context: Context, params: search.SearchSkills) -> Any:
    return msgspec.json.decode((await search.search_skills(context, params)).data)


async def _load_skill(context: Context, params: LoadSkill) -> Any:
    replica = context.replica
    look = partial(replica.catalog.version, params.skill, params.version, context.principal.viewer.sees)
    skill, version = await replica.seek(context.level, look)
    async with replica.invocations.logged(context.caller, "load_skill", skill, version, {}):
        file = skills.ReadFile(owner=skill.owner, name=skill.name, path=uris.SKILL_MD, version=version.version)
        _, data = await skills.file_bytes(context, file)
    return {
        "id": skill.id,
        "version": version.version,
        "digest": version.digest,
        "instructions": data.decode("utf-8"),
        "files": [entry.path for entry in version.manifest if entry.path != uris.SKILL_MD],
        "tools": [tool.name for tool in replica.tools.of(skill)] if skill.active == version else [],
    }


async def _read_skill_file(context: Context, params: ReadSkillFile) -> Any:
    owner, name = params.skill.split("/")
    file = skills.ReadFile(owner=owner, name=name, path=params.path, version=params.version)
    return msgspec.json.decode((await skills.read_file(context, file)).data)


async def _call_tool(context: Context, params: CallByName) -> Any:
    call = tools.CallTool(tool=params.tool, arguments=params.arguments)
    return msgspec.json.decode((await tools.call_tool(context, call)).data)


async def _check_operation(context: Context, params: incidents.CheckOperation) -> Any:
    return msgspec.json.decode((await incidents.check_operation(context, params)).data)


async def _record_feedback(context: Context, params: incidents.ReportOutcome) -> Any:
    return msgspec.json.decode((await incidents.report_outcome(context, params)).data)


META_TOOLS = {
    "search_skills": MetaTool(
        "Find skills for a task, by meaning. `token_budget` bounds what the answer costs.",
        search.SearchSkills,
        _search_skills,
    ),
    "load_skill": MetaTool("The instructions of a skill, its files and its tools.", LoadSkill, _load_skill),
    "read_skill_file": MetaTool("A file of a skill.", ReadSkillFile, _read_skill_file),
    "call_tool": MetaTool("Call a tool of a skill by its name.", CallByName, _call_tool, "invoke"),
    "record_feedback": MetaTool(
        "Whether a solution that a failed call named helped; solutions that help are named first.",
        incidents.ReportOutcome,
        _record_feedback,
        "invoke",
    ),
    "check_operation": MetaTool(
        "Whether a call is known to fail: `none`, `warning` or `block`, with what helped before.",
        incidents.CheckOperation,
        _check_operation,
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

    def __init__(self, replica: Replica, sessions: LegacySessions, ranking: ToolRanking) -> None:
        self._replica = replica
        self._ranking = ranking
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
            ("mcp", viewer), lambda: [_listed(tool) for tool in self._ranking.listed(tools.listed(viewer.sees))]
        )
        return cacheable(context, {"tools": [*_META_LISTED, *listed]}, revision=self._replica.view.revision)

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
        arguments = params.arguments or {}
        try:
            operation = Context(self._replica, principal, caller_of(context), level_of(context))
            if params.name in META_TOOLS:
                return await call_meta(operation, params.name, arguments)
            principal.require("invoke")
            tool = await self._replica.seek(operation.level, partial(self._find, params.name, principal))
            run = partial(self._replica.calls.run, tool, arguments, operation.caller)
            if tool.spec.interactive:
                answer = await converse(context, self._sessions, tool.spec.requires, run)
                content = _own_content(answer.result)
            else:
                answer = await run()
                content = _content(answer.result)
        except Questions as questions:
            return questions.result
        except NotFound as error:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name}") from error
        except ServiceError as error:
            return _failed(error)
        meta = {VERSION_META: answer.version, DIGEST_META: answer.digest, "dev.skillwire/skill": answer.skill}
        return {**content, "_meta": {**content.get("_meta", {}), **meta}}


async def call_meta(context: Context, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The result of one of the server's own tools; it fails as others do, within its result."""
    tool = META_TOOLS[name]
    try:
        context.principal.require(tool.scope)
        answer = await tool.run(context, parse(tool.params, arguments))
    except ServiceError as error:
        return _failed(error)
    if not isinstance(answer, Reply):
        return _content(answer)
    content = _content(msgspec.json.decode(answer.data))
    meta = write_meta(answer)
    return {**content, "_meta": meta} if meta else content


def _content(result: Any) -> dict[str, Any]:
    """Structured where the result is an object, and always as text for clients of before."""
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    content: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": False, **COMPLETE}
    return content | {"structuredContent": result} if isinstance(result, dict) else content


def _own_content(result: Any) -> dict[str, Any]:
    """An interactive tool may answer with content of its own making, a picture for instance."""
    if not isinstance(result, dict) or "content" not in result:
        return _content(result)
    try:
        types.CallToolResult.model_validate(result)
    except ValidationError as error:
        raise ToolFailed("the tool's content is not as MCP defines it", code="bad_output") from error
    return {**result, **COMPLETE}


def _failed(error: ServiceError) -> dict[str, Any]:
    """A failed call is a result that the model reads, with a code for programs."""
    text = f"{error.message} (code: {error.code})"
    meta = {"dev.skillwire/code": error.code}
    if "incident" in error.facts:
        known = msgspec.to_builtins(error.facts.get("known_solutions", []))
        meta |= {"dev.skillwire/incident": error.facts["incident"], "dev.skillwire/known_solutions": known}
        text += "".join(
            f"\nKnown solution ({each['match']}, worked {each['worked']} of {each['tried']} times): {each['text']}"
            for each in known
        )
    return {"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta, **COMPLETE}


def _listed(tool: CallableTool) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "name": tool.name,
        "title": f"{tool.skill.name}: {tool.spec.name}",
        "description": tool.spec.description,
        "inputSchema": tool.spec.input_schema,
        "_meta": {VERSION_META: tool.version.version, DIGEST_META: tool.version.digest},
    }
    return listed if tool.spec.output_schema is None else {**listed, "outputSchema": tool.spec.output_schema}
