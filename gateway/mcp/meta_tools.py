"""Tools of the server itself: stable ones, for clients that cache their list."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from pydantic import Field

from gateway.envelope import Reply, reply, write_meta
from gateway.mcp import results, uris
from gateway.operations import cache, incidents, search, skills
from gateway.operations import tools as tool_operations
from gateway.operations.table import Context, JsonObject, Params, parse
from gateway.principal import Scope
from services.failures import ServiceError
from services.models import SKILL_ID_PATTERN
from services.search.documents import tokens_of
from services.skills.catalog import served_file

# Of an answer of `search_skills` without hits, with numbers as long as they get.
_FRAME_TOKENS = tokens_of({"items": [], "mode": "lexical", "tokens": 10**6, "tokens_saved": 10**6})


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


async def _search_skills(context: Context, params: search.SearchSkills) -> Reply:
    """No more of a hit than a model needs to choose it: all that is sent counts against the budget."""
    source = await context.replica.current(context.level)
    budget = params.token_budget
    left = None if budget is None else max(0, budget - _FRAME_TOKENS)
    answer = await context.replica.search.search(params.query, params.limit, context.principal.viewer.sees, left)
    found = {
        "items": [
            {"id": hit.skill.id, "description": hit.skill.active.description}
            for hit in answer.hits
            if hit.skill.active is not None
        ],
        "mode": answer.mode,
        "tokens": answer.tokens + _FRAME_TOKENS,
        "tokens_saved": max(0, answer.tokens_saved - _FRAME_TOKENS),
    }
    return reply(found, source)


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
        _search_skills,
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
