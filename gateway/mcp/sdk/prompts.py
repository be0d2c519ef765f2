"""Prompts over MCP: those a package declares, and skills that say `user-invocable: true`; and completion."""

import re
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from gateway.mcp import uris
from gateway.mcp.sdk.context import RequestContext, answering, cacheable, caller_of, level_of, one_page, principal_of
from gateway.mcp.sdk.dialogue import Questions, converse
from gateway.mcp.sdk.legacy import LegacySessions
from gateway.mcp.wire import COMPLETE, DIGEST_META, VERSION_META
from gateway.operations.skills import ReadFile, file_bytes
from gateway.operations.table import Context
from gateway.replica import Replica
from services.failures import Invalid, ToolFailed
from services.models import Skill, Version
from services.skills import frontmatter
from services.skills.tools import CallableTool

COMPLETIONS_MAX = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class PromptHandlers:
    """Handlers of `prompts/*` and `completion/complete` over one replica."""

    def __init__(self, replica: Replica, sessions: LegacySessions) -> None:
        self._replica = replica
        self._sessions = sessions

    async def list_prompts(
        self, context: RequestContext, params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        one_page(params)
        principal = principal_of(context)
        with answering():
            principal.require("read")
            await self._replica.current(level_of(context))
        sees = principal.viewer.sees
        prompts = {name: _of_skill(name, skill) for name, skill in self._invocable(context).items()}
        prompts |= {tool.name: _of_tool(tool) for tool in self._replica.tools.prompts(sees)}
        shown = [prompts[name] for name in sorted(prompts)]
        return cacheable(context, {"prompts": shown}, revision=self._replica.view.revision)

    async def get_prompt(self, context: RequestContext, params: types.GetPromptRequestParams) -> dict[str, Any]:
        principal = principal_of(context)
        given = params.arguments or {}
        with answering():
            principal.require("read")
            await self._replica.current(level_of(context))
            tool = self._replica.tools.find_prompt(params.name, principal.viewer.sees)
            if tool is not None:
                principal.require("invoke")
                return await self._run(context, tool, given)
            skill = self._invocable(context).get(params.name)
            if skill is None or skill.active is None:
                raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name}")
            _require_arguments(_arguments_of(skill.active), given)
            return await self._read(context, skill, skill.active, given)

    async def _run(self, context: RequestContext, tool: CallableTool, given: dict[str, str]) -> dict[str, Any]:
        caller = caller_of(context)
        try:
            answer = await converse(
                context,
                self._sessions,
                tool.spec.requires,
                lambda dialogue: self._replica.calls.run(tool, given, caller, dialogue),
            )
        except Questions as questions:
            return questions.result
        result = answer.result
        if isinstance(result, str):
            result = {"messages": [_said(result)]}
        try:
            types.GetPromptResult.model_validate(result)
        except ValidationError as error:
            raise ToolFailed("the prompt answers neither text nor messages", code="bad_output") from error
        return {"description": tool.spec.description, **result, **COMPLETE}

    async def _read(
        self, context: RequestContext, skill: Skill, version: Version, given: dict[str, str]
    ) -> dict[str, Any]:
        principal = principal_of(context)
        operation = Context(self._replica, principal, principal.caller("mcp"))
        async with self._replica.invocations.logged(caller_of(context), "prompts/get", skill, version, dict(given)):
            file = ReadFile(owner=skill.owner, name=skill.name, path=uris.SKILL_MD, version=version.version)
            _, data = await file_bytes(operation, file)
        _, body = frontmatter.split(data.decode("utf-8"))
        return {
            "description": version.description,
            "messages": [_said(_filled(body.strip(), given))],
            "_meta": {VERSION_META: version.version, DIGEST_META: version.digest},
            **COMPLETE,
        }

    async def complete(self, context: RequestContext, params: types.CompleteRequestParams) -> dict[str, Any]:
        """Owners, names and paths for the `skill://` templates; for prompts what their schemas enumerate."""
        principal = principal_of(context)
        with answering():
            principal.require("read")
            await self._replica.current(level_of(context))
        before = params.context.arguments if params.context and params.context.arguments else {}
        ref, name = params.ref, params.argument.name
        if isinstance(ref, types.PromptReference):
            tool = self._replica.tools.find_prompt(ref.name, principal.viewer.sees)
            if tool is None and ref.name not in self._invocable(context):
                raise MCPError(types.INVALID_PARAMS, f"there is no prompt {ref.name}")
            schema = tool.spec.input_schema if tool else {}
            values = [str(each) for each in schema.get("properties", {}).get(name, {}).get("enum", ())]
        else:
            values = self._of_template(context, name, before) if ref.uri.startswith("skill://") else []
        found = sorted({value for value in values if value.startswith(params.argument.value)})
        shown = found[:COMPLETIONS_MAX]
        completion = {"values": shown, "total": len(found), "hasMore": len(found) > len(shown)}
        return {"completion": completion, **COMPLETE}

    def _of_template(self, context: RequestContext, name: str, before: dict[str, str]) -> list[str]:
        skills = [
            skill
            for skill in self._replica.view.served(principal_of(context).viewer.sees)
            if before.get("owner", skill.owner) == skill.owner and before.get("name", skill.name) == skill.name
        ]
        if name == "owner":
            return [skill.owner for skill in skills]
        if name == "name":
            return [skill.name for skill in skills]
        if name == "path" and len(skills) == 1 and skills[0].active is not None:
            return [entry.path for entry in skills[0].active.manifest]
        return []

    def _invocable(self, context: RequestContext) -> dict[str, Skill]:
        return {
            f"{skill.owner}_{skill.name}": skill
            for skill in self._replica.view.served(principal_of(context).viewer.sees)
            if skill.active is not None and skill.active.frontmatter.get("user-invocable") is True
        }


def _said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": {"type": "text", "text": text}}


def _of_tool(tool: CallableTool) -> dict[str, Any]:
    schema = tool.spec.input_schema
    required = schema.get("required", ())
    return {
        "name": tool.name,
        "description": tool.spec.description,
        "arguments": [
            {"name": name, "description": str(each.get("description", "")), "required": name in required}
            for name, each in schema.get("properties", {}).items()
        ],
        "_meta": {VERSION_META: tool.version.version, DIGEST_META: tool.version.digest},
    }


def _of_skill(name: str, skill: Skill) -> dict[str, Any]:
    assert skill.active is not None
    return {
        "name": name,
        "title": skill.name,
        "description": skill.active.description,
        "arguments": _arguments_of(skill.active),
        "_meta": {VERSION_META: skill.active.version, DIGEST_META: skill.active.digest},
    }


def _arguments_of(version: Version) -> list[dict[str, Any]]:
    """Named in the frontmatter as `arguments: [from, to]`; one free text otherwise."""
    named = version.frontmatter.get("arguments")
    names = named.split() if isinstance(named, str) else named if isinstance(named, list) else []
    good = [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
    if good:
        return [{"name": name, "required": True} for name in good]
    hint = version.frontmatter.get("argument-hint")
    return [{"name": "arguments", "description": str(hint or "What follows the command."), "required": False}]


def _require_arguments(arguments: list[dict[str, Any]], given: dict[str, str]) -> None:
    missing = [each["name"] for each in arguments if each["required"] and each["name"] not in given]
    if missing:
        raise Invalid(f"the prompt needs {', '.join(missing)}", code="bad_arguments")


def _filled(body: str, given: dict[str, str]) -> str:
    """`$ARGUMENTS` and `$name` as agents fill them in; what has no place in the text follows it."""
    everything = " ".join(given.values())
    places = {**given, "ARGUMENTS": everything}
    filled = re.sub(r"\$([A-Za-z_][A-Za-z0-9_-]*)", lambda found: places.get(found[1], found[0]), body)
    has_place = any(f"${name}" in body for name in places)
    return filled if has_place or not everything else f"{filled}\n\nARGUMENTS: {everything}"
