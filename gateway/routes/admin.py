"""`/admin/skills/...`: the addresses an older skill service had, as thin routes onto the same operations.

A skill is named `owner/name`, or by its name alone when its owner is `main`.
"""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Body, File, Query, Request, UploadFile
from starlette.responses import Response

from gateway.envelope import http_response, reply
from gateway.operations import OPERATIONS
from gateway.operations.skills import publish_zip
from gateway.operations.table import PAGE_MAX, parse
from gateway.replica import Replica
from gateway.routes.rest import PROBLEMS, Envelope, context_of
from services.skills.archive import read_zip

_BY_NAME = {operation.name: operation for operation in OPERATIONS}
_ZIP = File(description="The package as a zip file.")


def admin_router(replica: Replica) -> APIRouter:
    router = APIRouter(prefix="/admin/skills", default_response_class=Response)
    answers: dict[str, Any] = {"response_model": Envelope, "responses": PROBLEMS}

    @router.post("/upload", status_code=201, operation_id="admin_upload", **answers)
    async def upload(request: Request, file: Annotated[UploadFile, _ZIP]) -> Response:
        context = context_of(request, replica)
        context.principal.require("publish")
        return http_response(request, await publish_zip(context, await file.read(), "main", True, None), 201)

    @router.post("/validate", operation_id="admin_validate", **answers)
    async def validate(request: Request, file: Annotated[UploadFile, _ZIP]) -> Response:
        context_of(request, replica).principal.require("publish")
        package = await asyncio.to_thread(read_zip, await file.read())
        judged = {"name": package.name, "grade": package.grade, "digest": package.digest}
        found = [msgspec.structs.asdict(diagnostic) for diagnostic in package.diagnostics]
        return http_response(request, reply({**judged, "diagnostics": found}))

    @router.get("/{skill:path}/versions", operation_id="admin_versions", **answers)
    async def versions(request: Request, skill: str) -> Response:
        return await _run(request, replica, "list_versions", _named(skill))

    @router.post("/{skill:path}/rollback", operation_id="admin_rollback", **answers)
    async def rollback(request: Request, skill: str, version: Annotated[int, Body(embed=True)]) -> Response:
        return await _run(request, replica, "rollback", {**_named(skill), "version": version})

    @router.get("/{skill:path}/logs", operation_id="admin_logs", **answers)
    async def logs(request: Request, skill: str, limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50) -> Response:
        return await _run(request, replica, "skill_logs", {**_named(skill), "limit": limit})

    @router.post("/{skill:path}/reload", operation_id="admin_reload", **answers)
    async def reload(request: Request, skill: str) -> Response:
        named = _named(skill)
        return await _run(request, replica, "force_skill_reload", {"skill_id": f"{named['owner']}/{named['name']}"})

    return router


def _named(skill: str) -> dict[str, Any]:
    owner, _, name = skill.rpartition("/")
    return {"owner": owner or "main", "name": name}


async def _run(request: Request, replica: Replica, name: str, values: dict[str, Any]) -> Response:
    operation = _BY_NAME[name]
    return http_response(request, await operation(context_of(request, replica), parse(operation.params, values)))
