"""Skills over MCP: the Skills extension (SEP-2640) and the resources every client understands."""

import base64
from functools import partial
from typing import Any

import mcp_types as types

from gateway.mcp import uris
from gateway.mcp.sdk.context import (
    RequestContext,
    answering,
    cacheable,
    level_of,
    one_page,
    principal_of,
    unknown_cursor,
    unknown_resource,
)
from gateway.mcp.skill_list import PAGE, is_cursor, is_listable, skill_entry
from gateway.mcp.wire import DIGEST_META, VERSION_META
from gateway.operations.skills import ReadFile, file_bytes
from gateway.operations.table import Context
from gateway.replica import Replica
from gateway.routes.packages import media_type, type_of_name
from services.failures import NotFound
from services.models import FileEntry, Skill, Version


class UriParams(types.RequestParams):
    uri: str


class DirectoryParams(types.PaginatedRequestParams):
    uri: str


class SkillResources:
    """Handlers of `skills/*` and `resources/*`, all over one replica's catalog."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def list_skills(self, context: RequestContext, params: types.PaginatedRequestParams) -> dict[str, Any]:
        with answering():
            await self._replica.current(level_of(context))
        skills = [skill for skill in self._served(context) if is_listable(skill)]
        shown, cursor = _page(skills, params.cursor)
        result: dict[str, Any] = {"skills": [skill_entry(skill, skill.active) for skill in shown if skill.active]}
        return cacheable(context, _with_cursor(result, cursor), revision=self._replica.view.revision)

    async def get_skill(self, context: RequestContext, params: UriParams) -> dict[str, Any]:
        skill, version, path = await self._resolve(context, params.uri)
        if path != uris.SKILL_MD or version.frontmatter.get("name") != skill.name:
            raise unknown_resource(params.uri)
        return cacheable(context, {"skill": skill_entry(skill, version)})

    async def read_directory(self, context: RequestContext, params: DirectoryParams) -> dict[str, Any]:
        one_page(params)
        skill, version, path = await self._resolve(context, params.uri)
        children: dict[str, dict[str, Any]] = {}
        prefix = f"{path}/" if path else ""
        for entry in version.manifest:
            if entry.path.startswith(prefix):
                name, _, below = entry.path[len(prefix) :].partition("/")
                child = uris.pinned(skill, version, prefix + name)
                children[name] = (
                    {"uri": child, "name": name, "mimeType": "inode/directory"}
                    if below
                    else _resource(skill, version, entry, name)
                )
        if not children:
            raise unknown_resource(params.uri)
        return cacheable(context, {"resources": list(children.values())})

    async def list_resources(
        self, context: RequestContext, params: types.PaginatedRequestParams | None
    ) -> dict[str, Any]:
        with answering():
            await self._replica.current(level_of(context))
        shown, cursor = _page(list(self._served(context)), params.cursor if params else None)
        resources = [
            _resource(skill, skill.active, entry, skill.name)
            for skill in shown
            if skill.active
            for entry in skill.active.manifest
            if entry.path == uris.SKILL_MD
        ]
        return cacheable(context, _with_cursor({"resources": resources}, cursor), revision=self._replica.view.revision)

    async def list_templates(self, context: RequestContext) -> dict[str, Any]:
        with answering():
            principal_of(context).require("read")
            await self._replica.current(level_of(context))
        templates = [
            {
                "uriTemplate": "skill://{owner}/{name}/{+path}",
                "name": "skill file",
                "description": "A file of a skill's active version.",
            },
            {
                "uriTemplate": "skill://{owner}/@{version}/{name}/{+path}",
                "name": "skill file of a version",
                "description": "A file of one version; its bytes never change.",
            },
        ]
        return cacheable(context, {"resourceTemplates": templates}, revision=self._replica.view.revision)

    async def read_resource(self, context: RequestContext, params: types.ReadResourceRequestParams) -> dict[str, Any]:
        skill, version, path = await self.find(context, params.uri)
        principal = principal_of(context)
        operation = Context(self._replica, principal, principal.caller("mcp"))
        file = ReadFile(owner=skill.owner, name=skill.name, path=path, version=version.version)
        with answering():
            try:
                _, data = await file_bytes(operation, file)
            except NotFound as error:
                raise unknown_resource(params.uri) from error
        return cacheable(context, {"contents": [_contents(params.uri, path, version, data)]})

    async def find(self, context: RequestContext, uri: str) -> tuple[Skill, Version, str]:
        """The file that a URI names. Raises `MCPError` where there is none that this caller may see."""
        skill, version, path = await self._resolve(context, uri)
        if all(entry.path != path for entry in version.manifest):
            raise unknown_resource(uri)
        return skill, version, path

    async def _resolve(self, context: RequestContext, uri: str) -> tuple[Skill, Version, str]:
        """What a URI names. "Not found" is said only after a tail: it may have been published just now."""
        parsed = uris.parse(uri)
        if parsed is None:
            raise unknown_resource(uri)
        principal = principal_of(context)
        sees = principal.viewer.sees
        with answering():
            principal.require("read")
            look = partial(self._replica.catalog.version, parsed.skill_id, parsed.version, sees)
            try:
                skill, version = await self._replica.seek(level_of(context), look)
            except NotFound as error:
                raise unknown_resource(uri) from error
        return skill, version, parsed.path

    def _served(self, context: RequestContext) -> list[Skill]:
        principal = principal_of(context)
        with answering():
            principal.require("read")
        return list(self._replica.view.served(principal.viewer.sees))


def _resource(skill: Skill, version: Version, entry: FileEntry, name: str) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "uri": uris.pinned(skill, version, entry.path),
        "name": name,
        "size": entry.size,
        "_meta": {VERSION_META: version.version, DIGEST_META: version.digest},
    }
    if (kind := type_of_name(entry.path)) is not None:  # else the bytes tell, which a list does not read
        resource["mimeType"] = kind.partition(";")[0]
    if entry.path == uris.SKILL_MD:
        resource |= {"name": skill.name, "description": version.description}
    return resource


def _contents(uri: str, path: str, version: Version, data: bytes) -> dict[str, Any]:
    contents: dict[str, Any] = {
        "uri": uri,
        "mimeType": media_type(path, data).partition(";")[0],
        "_meta": {VERSION_META: version.version, DIGEST_META: version.digest},
    }
    try:
        contents["text"] = data.decode("utf-8")
    except UnicodeDecodeError:
        contents["blob"] = base64.b64encode(data).decode()
    return contents


def _page(skills: list[Skill], cursor: str | None) -> tuple[list[Skill], str | None]:
    """The page after `cursor` (the last id of the page before)."""
    if cursor is not None:
        if not is_cursor(cursor):
            raise unknown_cursor()
        skills = [skill for skill in skills if skill.id > cursor]
    return skills[:PAGE], skills[PAGE - 1].id if len(skills) > PAGE else None


def _with_cursor(result: dict[str, Any], cursor: str | None) -> dict[str, Any]:
    return result if cursor is None else {**result, "nextCursor": cursor}
