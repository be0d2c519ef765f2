"""What REST does in its own form: a package comes as multipart, a file goes out as plain bytes."""

import mimetypes
from typing import Annotated

from fastapi import APIRouter, File, Form, Header, Path, Query, Request, UploadFile
from starlette.responses import Response

from gateway.auth import TICKET_S
from gateway.envelope import http_response, reply
from gateway.operations.skills import ReadFile, file_bytes, publish_zip
from gateway.operations.table import SEQ_MAX
from gateway.operations.versions import Export, export_zip
from gateway.replica import Replica
from gateway.routes.rest import PREFIX, PROBLEMS, Envelope, context_of
from services.failures import Invalid
from services.models import NAME_PATTERN, OWNER_PATTERN
from services.skills.manifest import DIGEST

# Types of their own for what skills are made of; a script must never be one a browser runs.
_TYPES = {".md": "text/markdown; charset=utf-8", ".json": "application/json", ".csv": "text/csv; charset=utf-8"}
_PLAIN = "text/plain; charset=utf-8"
_FIELDS = ("file", "owner", "activate")
_AS_THEY_ARE = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")


def packages_router(replica: Replica) -> APIRouter:
    router = APIRouter(prefix=PREFIX)

    @router.post(
        "/skills",
        status_code=201,
        operation_id="publish",
        summary="Publish a package as a new version.",
        response_model=Envelope,
        responses=PROBLEMS,
    )
    async def publish(
        request: Request,
        file: Annotated[UploadFile, File(description="The package as a zip file.")],
        owner: Annotated[str, Form(pattern=OWNER_PATTERN)] = "main",
        activate: Annotated[bool, Form()] = True,
        if_match: Annotated[str | None, Header(description='The digest to replace, as `"sha256:..."`.')] = None,
    ) -> Response:
        context = context_of(request, replica)
        context.principal.require("publish")
        await _refuse_unknown(request)
        digest = if_match.strip('" ') if if_match is not None else None
        if digest is not None and DIGEST.fullmatch(digest) is None:
            raise Invalid("If-Match must be the digest of the active version")
        return http_response(request, await publish_zip(context, await file.read(), owner, activate, digest), 201)

    @router.get(
        "/skills/{owner}/{name}/files/{path:path}",
        operation_id="read_file",
        summary="A file's bytes, as published.",
        response_class=Response,
        responses=PROBLEMS,
    )
    async def read_file(
        request: Request,
        owner: Annotated[str, Path(pattern=OWNER_PATTERN)],
        name: Annotated[str, Path(pattern=NAME_PATTERN, max_length=64)],
        path: Annotated[str, Path(max_length=255)],
        version: Annotated[int | None, Query(ge=1, le=SEQ_MAX)] = None,
    ) -> Response:
        context = context_of(request, replica)
        context.principal.require("read")
        found, data = await file_bytes(context, ReadFile(owner=owner, name=name, path=path, version=version))
        headers = {"x-skill-version": str(found.version), "x-skill-digest": found.digest, "cache-control": "no-cache"}
        return Response(data, headers=headers, media_type=media_type(path, data))

    _add_export(router, replica)

    @router.post(
        "/tickets",
        operation_id="create_ticket",
        summary="A ticket that opens one WebSocket or event stream.",
        response_model=Envelope,
        responses=PROBLEMS,
    )
    async def create_ticket(request: Request) -> Response:
        ticket = request.state.authenticator.issue_ticket(request.state.principal)
        return http_response(request, reply({"ticket": ticket, "expires_in_s": TICKET_S}))

    return router


async def _refuse_unknown(request: Request) -> None:
    """A field that is mistyped, or stands in the query, would publish something else than what was meant."""
    fields = [name for name, _ in (await request.form()).multi_items()]
    odd = {name for name in fields if name not in _FIELDS or fields.count(name) > 1} | set(request.query_params)
    if odd:
        known, named = ", ".join(_FIELDS), ", ".join(sorted(odd))
        raise Invalid(f"a publish takes the form fields {known}, each once; this has {named}")


def _add_export(router: APIRouter, replica: Replica) -> None:
    @router.get(
        "/skills/{owner}/{name}/export",
        operation_id="export_skill",
        summary="A version as a zip; the same bytes on every replica.",
        response_class=Response,
        responses=PROBLEMS,
    )
    async def export_skill(
        request: Request,
        owner: Annotated[str, Path(pattern=OWNER_PATTERN)],
        name: Annotated[str, Path(pattern=NAME_PATTERN, max_length=64)],
        version: Annotated[int | None, Query(ge=1, le=SEQ_MAX)] = None,
    ) -> Response:
        context = context_of(request, replica)
        context.principal.require("read")
        found, data = await export_zip(context, Export(owner=owner, name=name, version=version))
        etag = f'"{found.digest}"'
        headers = {
            "etag": etag,
            "cache-control": "private, no-cache",
            "x-skill-version": str(found.version),
            "x-skill-digest": found.digest,
            "content-disposition": f'attachment; filename="{name}-{found.version}.zip"',
        }
        given = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if etag in given or given == ["*"]:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type="application/zip")


def media_type(path: str, data: bytes) -> str:
    """What a file is served as: skills are data, never pages or scripts of this site."""
    suffix = path[path.rfind(".") :].lower() if "." in path else ""
    if suffix in _TYPES:
        return _TYPES[suffix]
    guessed = mimetypes.guess_type(path)[0]
    if guessed in _AS_THEY_ARE:
        return guessed
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return _PLAIN
