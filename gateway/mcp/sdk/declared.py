"""Resources over MCP: the files of skills, and what packages declare under `<owner>://`."""

from typing import Any

import mcp_types as types

from gateway.mcp import uris
from gateway.mcp.sdk.context import (
    RequestContext,
    answering,
    cacheable,
    caller_of,
    level_of,
    one_page,
    principal_of,
    unknown_resource,
)
from gateway.mcp.sdk.legacy import WATCHED_MAX, LegacySessions
from gateway.mcp.sdk.skills import SkillResources
from gateway.mcp.wire import DIGEST_META, VERSION_META
from gateway.replica import Replica
from services.changes.levels import LINEARIZABLE
from services.failures import Exhausted, ToolFailed
from services.skills.kinds import variables
from services.skills.tools import CallableTool


class DeclaredResources:
    """Handlers of `resources/*`; what begins with `skill://` is left to `SkillResources`."""

    def __init__(self, replica: Replica, skills: SkillResources, sessions: LegacySessions) -> None:
        self._replica = replica
        self._skills = skills
        self._sessions = sessions

    async def list_resources(
        self, context: RequestContext, params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        result = await self._skills.list_resources(context, params)
        if params is None or params.cursor is None:
            own = [_shown(tool, "uri") for tool in self._declared(context) if not variables(tool.spec.uri)]
            result["resources"] = [*own, *result["resources"]]
        return result

    async def list_templates(
        self, context: RequestContext, params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        one_page(params)
        result = await self._skills.list_templates(context)
        own = [_shown(tool, "uriTemplate") for tool in self._declared(context) if variables(tool.spec.uri)]
        result["resourceTemplates"] += own
        return result

    async def read_resource(self, context: RequestContext, params: types.ReadResourceRequestParams) -> dict[str, Any]:
        if params.uri.startswith("skill://"):
            return await self._skills.read_resource(context, params)
        tool, values = await self._find(context, params.uri)
        with answering():
            principal_of(context).require("invoke")
            answer = await self._replica.calls.run(tool, {"uri": params.uri, **values}, caller_of(context))
            contents = _contents(params.uri, tool, answer.result)
        return cacheable(context, {"contents": [contents]}, ttl_ms=0)

    async def watch(self, context: RequestContext, params: types.SubscribeRequestParams) -> dict[str, Any]:
        """`resources/subscribe` of the eras before 2026-07-28."""
        if uris.parse(params.uri) is not None:
            await self._skills.find(context, params.uri)
        else:
            await self._find(context, params.uri)
        with answering():
            if not self._sessions.watch(context.session, params.uri):
                raise Exhausted(f"a session watches at most {WATCHED_MAX} resources", code="too_many_watched")
        return {}

    async def unwatch(self, context: RequestContext, params: types.UnsubscribeRequestParams) -> dict[str, Any]:
        self._sessions.unwatch(context.session, params.uri)
        return {}

    async def _find(self, context: RequestContext, uri: str) -> tuple[CallableTool, dict[str, str]]:
        """ "Not found" is said only after a tail: it may have been published just now."""
        sees = principal_of(context).viewer.sees
        with answering():
            principal_of(context).require("read")
            for level in (level_of(context), LINEARIZABLE):
                await self._replica.current(level)
                found = self._replica.tools.find_resource(uri, sees)
                if found is not None:
                    return found
        raise unknown_resource(uri)

    def _declared(self, context: RequestContext) -> list[CallableTool]:
        return self._replica.tools.resources(principal_of(context).viewer.sees)


def _shown(tool: CallableTool, member: str) -> dict[str, Any]:
    return {
        member: tool.name,
        "name": tool.spec.name,
        "description": tool.spec.description,
        "mimeType": tool.spec.mime_type,
        "_meta": {VERSION_META: tool.version.version, DIGEST_META: tool.version.digest},
    }


def _contents(uri: str, tool: CallableTool, result: Any) -> dict[str, Any]:
    """From a text, or from `{"blob": base64}`."""
    contents = {
        "uri": uri,
        "mimeType": tool.spec.mime_type,
        "_meta": {VERSION_META: tool.version.version, DIGEST_META: tool.version.digest},
    }
    if isinstance(result, str):
        return {**contents, "text": result}
    if isinstance(result, dict) and isinstance(result.get("blob"), str):
        return {**contents, "blob": result["blob"]}
    raise ToolFailed("a resource answers a text, or `blob` in base64", code="bad_output")
