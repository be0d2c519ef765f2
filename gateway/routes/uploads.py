"""Parts of a large upload, as plain bytes; `publish_upload` of the operation table joins them."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from gateway.envelope import http_response, reply
from gateway.replica import Replica
from gateway.routes.rest import PREFIX, PROBLEMS, Envelope, context_of
from services.failures import NotFound, TooLarge
from services.skills.uploads import PART_BYTES_MAX

_Name = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The SHA-256 of the part's bytes.")]


def uploads_router(replica: Replica) -> APIRouter:
    router = APIRouter(prefix=PREFIX)

    @router.put(
        "/uploads/{sha256}",
        status_code=201,
        operation_id="put_part",
        summary="Store one part of an upload, at most 8 MiB.",
        response_model=Envelope,
        responses=PROBLEMS,
        openapi_extra={"requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}},
    )
    async def put_part(request: Request, sha256: _Name) -> Response:
        context_of(request, replica).principal.require("publish")
        part = await _read_part(request)
        await replica.uploads.put(sha256, part)
        return http_response(request, reply({"sha256": sha256, "size": len(part)}), 201)

    @router.head(
        "/uploads/{sha256}",
        operation_id="has_part",
        summary="Whether a part is there: 200 or 404.",
        response_class=Response,
        responses=PROBLEMS,
    )
    async def has_part(request: Request, sha256: _Name) -> Response:
        context_of(request, replica).principal.require("publish")
        if not await replica.uploads.has(sha256):
            raise NotFound("there is no such part", code="part_missing", parts=[sha256])
        return Response(status_code=200)

    return router


async def _read_part(request: Request) -> bytes:
    """No more than a part is read of a body that says nothing of its length."""
    part = bytearray()
    async for chunk in request.stream():
        part += chunk
        if len(part) > PART_BYTES_MAX:
            raise TooLarge(f"a part is at most {PART_BYTES_MAX} bytes")
    return bytes(part)
