"""Probes and metrics: `/livez` (the loop turns), `/readyz` (send traffic here), `/health` (why, per part)."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway import state
from gateway.replica import Replica
from notifier.metrics import REGISTRY as PUSH_REGISTRY
from services.metrics import REGISTRY


class Draining:
    """Set when the process was told to stop: readiness goes first, so that no new work arrives."""

    def __init__(self) -> None:
        self.started = False


def probes_router(replica: Replica, draining: Draining) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> Response:
        return PlainTextResponse("ok")

    @router.get("/readyz")
    async def readyz() -> Response:
        if draining.started:
            return PlainTextResponse("draining", 503)
        check = await state.database(replica)
        # Degraded still answers, labelled stale: taking every replica out at once would help nobody.
        return PlainTextResponse(check.status, 503 if check.status == "down" else 200)

    @router.get("/health")
    async def health() -> Response:
        body = await state.health(replica)
        return JSONResponse(body, 503 if body["status"] == "down" else 200)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(PUSH_REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router
