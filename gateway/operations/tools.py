"""Tools: listing and calling them, and the log of what was called."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, Field

from gateway.envelope import Reply, page, reply
from gateway.operations.table import PAGE_MAX, Context, JsonObject, NoParams, Operation, Params, SkillParams
from services.ports import InvocationQuery
from services.skills.tools import CallableTool

# The longest a tool may ask for (an hour), and a minute to wait for a worker.
_CALL_S = 3660.0
_STAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$"


def _to_the_ms(given: str) -> str:
    """A time as the log writes it, which is compared as text. What is between two milliseconds becomes the
    later one: no call is between them, so at or after it, and before it, mean what they did."""
    try:
        if re.match(_STAMP, given) is None:
            raise ValueError
        at = datetime.fromisoformat(given).replace(tzinfo=None)
        at += timedelta(microseconds=-at.microsecond % 1000)
    except (ValueError, OverflowError):
        raise ValueError("is no time in UTC; write it as 2026-11-21T07:35:52Z") from None
    return f"{at.isoformat(timespec='milliseconds')}Z"


Stamp = Annotated[str, AfterValidator(_to_the_ms), Field(max_length=40, json_schema_extra={"pattern": _STAMP})]


class CallTool(Params):
    tool: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$", examples=["main_hello-world_greet"])
    arguments: JsonObject = Field(default_factory=dict)


class ListInvocations(Params):
    limit: int = Field(50, ge=1, le=PAGE_MAX)
    before: str | None = Field(None, max_length=64, description="`next_cursor` of the page before.")
    since: Stamp | None = Field(None, description="Only calls that ended then or later.")
    until: Stamp | None = Field(None, description="Only calls that ended before it.")
    skill: str | None = Field(None, max_length=160, description="Only calls of this skill, `owner/name`.")
    caller: str | None = Field(None, max_length=200, description="Only calls of this caller.")
    ok: bool | None = Field(None, description="Only calls that went well, or only those that failed.")


class SkillLogs(SkillParams):
    limit: int = Field(50, ge=1, le=PAGE_MAX)
    before: str | None = Field(None, max_length=64, description="`next_cursor` of the page before.")
    since: Stamp | None = Field(None, description="Only calls that ended then or later.")
    until: Stamp | None = Field(None, description="Only calls that ended before it.")
    caller: str | None = Field(None, max_length=200, description="Only calls of this caller.")
    ok: bool | None = Field(None, description="Only calls that went well, or only those that failed.")


async def list_tools(context: Context, _: NoParams) -> Reply:
    source = await context.replica.current(context.level)
    viewer = context.principal.viewer
    tools = context.replica.tools
    lines = context.replica.tool_lists.get(
        ("rest", viewer), lambda: [msgspec.json.encode(_tool(tool)) for tool in tools.listed(viewer.sees)]
    )
    data = page(lines, None, revision=context.replica.tools.revision)
    return Reply(data, source, etag=context.replica.tag("tools", context.replica.view.revision, context.principal.id))


def _tool(tool: CallableTool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "title": tool.spec.name,
        "description": tool.spec.description,
        "inputSchema": tool.spec.input_schema,
        "outputSchema": tool.spec.output_schema,
        "skill": tool.skill.id,
        "version": tool.version.version,
    }


async def call_tool(context: Context, params: CallTool) -> Reply:
    replica = context.replica

    async def look() -> CallableTool:
        return replica.tools.get(params.tool, context.principal.viewer.sees)

    await replica.seek(context.level, look)
    return reply(await replica.calls.call(params.tool, params.arguments, context.caller))


async def list_invocations(context: Context, params: ListInvocations) -> Reply:
    return await _invocations(context, _query(params, params.skill))


async def skill_logs(context: Context, params: SkillLogs) -> Reply:
    await context.replica.skill(params.skill_id, context.principal.viewer.sees, context.level)
    return await _invocations(context, _query(params, params.skill_id))


def _query(params: ListInvocations | SkillLogs, skill_id: str | None) -> InvocationQuery:
    return InvocationQuery(params.limit, skill_id, params.since, params.before, params.caller, params.ok, params.until)


async def _invocations(context: Context, query: InvocationQuery) -> Reply:
    """Only calls of skills the caller sees; a deleted skill's calls stay visible to who saw it."""
    sees = context.principal.viewer.sees
    found = await context.replica.store.invocations(query)
    shown = [call for call in found if (skill := context.replica.view.find(call.skill_id)) is not None and sees(skill)]
    after = found[-1].id if len(found) == query.limit else None
    return reply({"items": shown, "next_cursor": after})


OPERATIONS = (
    Operation("list_tools", "Every tool that can be called now.", "read", ("GET", "/tools"), NoParams, list_tools),
    Operation("call_tool", "Call a tool.", "invoke", ("POST", "/tools/{tool}/call"), CallTool, call_tool, _CALL_S),
    Operation(
        "list_invocations", "Calls, newest first.", "read", ("GET", "/invocations"), ListInvocations, list_invocations
    ),
    Operation(
        "skill_logs",
        "Calls of one skill, newest first.",
        "read",
        ("GET", "/skills/{owner}/{name}/logs"),
        SkillLogs,
        skill_logs,
    ),
)
