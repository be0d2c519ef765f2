"""Probes and metrics: `/livez` (the loop turns), `/readyz` (send traffic here), `/health` (why, per part)."""

from typing import Any, NamedTuple

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.replica import Replica
from notifier.metrics import REGISTRY as PUSH_REGISTRY
from services.failures import Unavailable
from services.metrics import REGISTRY


class Check(NamedTuple):
    """`ok`, `degraded` (answers are still right, but slower or fewer), `down`, or `off` (not configured)."""

    status: str
    detail: str = ""


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
        check = await _database(replica)
        return PlainTextResponse(check.status, 200 if check.status == "ok" else 503)

    @router.get("/health")
    async def health() -> Response:
        checks = await _checks(replica)
        worst = "down" if checks["database"].status == "down" else "ok"
        if worst == "ok" and any(check.status in ("degraded", "down") for check in checks.values()):
            worst = "degraded"
        body: dict[str, Any] = {
            "status": worst,
            "checks": {name: check._asdict() for name, check in checks.items()},
            "notices": replica.notices,
        }
        return JSONResponse(body, 503 if worst == "down" else 200)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(PUSH_REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router


async def _checks(replica: Replica) -> dict[str, Check]:
    return {
        "database": await _database(replica),
        "redis": _redis(replica),
        "search": _search(replica),
        "sandbox": _sandbox(replica),
        "watcher": _watcher(replica),
    }


async def _database(replica: Replica) -> Check:
    try:
        bound = await replica.feed.bound()
    except Unavailable as error:
        return Check("down", error.message)
    return Check("degraded", f"no answer; serving state of seq {bound.asof}") if bound.stale else Check("ok")


def _redis(replica: Replica) -> Check:
    state = replica.second.state
    if state == "on":
        return Check("ok")
    return Check("off") if state == "off" else Check("degraded", "not answering; served from memory and the database")


def _search(replica: Replica) -> Check:
    statistics = replica.search.statistics()
    detail = f"{statistics['vectors']} of {statistics['documents']} skills have vectors"
    return Check("ok" if statistics["mode"] == "hybrid" else "degraded", detail)


def _sandbox(replica: Replica) -> Check:
    sandbox = replica.sandbox
    if sandbox.available:
        return Check("ok", f"{sandbox.name} {sandbox.version}")
    return Check("degraded", f"tools cannot be called: {sandbox.reason}")


def _watcher(replica: Replica) -> Check:
    watcher = replica.watcher
    if watcher is None:
        return Check("off")
    if watcher.state == "failing" or watcher.held:
        return Check("degraded", watcher.held or f"{watcher.root} cannot be watched")
    return Check("ok", watcher.state)
