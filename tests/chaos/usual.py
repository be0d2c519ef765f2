"""A server of the usual algorithm for `make chaos`, on the same store, Valkey and addresses as the real one.

L1 and L2, no judgement, and a time to live longer than a run: after a write the key is deleted here and in L2, and a
message tells the others to drop it. A call to Redis that fails or takes too long is left out.
"""

import asyncio
import io
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import click
import redis.asyncio as redis
import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.storage.sql import SqlStore
from tests.support.drafts import draft

_CHANNEL = "skillwire:usual"
_PREFIX = "skillwire:usual:"
_TTL_S = 300
_REDIS_TIMEOUT_S = 0.05


class UsualService:
    def __init__(self, store: SqlStore, url: str) -> None:
        self._store = store
        self._memory: dict[str, str] = {}
        self._redis = redis.Redis.from_url(url, protocol=2, socket_timeout=0.5, decode_responses=True)

    async def read(self, request: Request) -> Response:
        """The newest version, or whether the one that is named is it, each under a key of its own."""
        name, version = request.path_params["name"], request.path_params.get("version")
        key = name if version is None else f"{name}@{version}"
        tier, value = "l1", self._memory.get(key)
        if value is None:
            tier, value = "l2", await _tried(self._redis.get(_PREFIX + key))
        if value is None:
            tier, skills = "l3", (await self._store.snapshot()).skills
            value = str(next(skill.last_version for skill in skills if skill.name == name))
            await _tried(self._redis.set(_PREFIX + key, value, ex=_TTL_S))
        self._memory[key] = value
        status = f'usual; detail="tier={tier}"'
        # What was cut short on the way is read as the number it now is, or as none.
        data = {"version": int(value or 0), "active": version is None or int(value or 0) <= int(version)}
        return JSONResponse({"data": data}, headers={"cache-status": status})

    async def write(self, request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert isinstance(file, UploadFile)
            with zipfile.ZipFile(io.BytesIO(await file.read())) as archive:
                text = archive.read("SKILL.md").decode()
        name = text.partition("name: ")[2].partition("\n")[0]
        (published,) = await self._store.publish([draft(name, text)])
        for key in (name, f"{name}@{published.version - 1}"):
            self._memory.pop(key, None)
            await _tried(self._redis.delete(_PREFIX + key))
            await _tried(self._redis.publish(_CHANNEL, key))
        data = {"version": published.version}
        return JSONResponse({"data": data}, 201, headers={"x-seq": str(published.seq)})

    async def listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(_CHANNEL)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=0.2)
                        if message is not None:
                            self._memory.pop(message["data"], None)
            except (RedisError, OSError):
                await asyncio.sleep(0.2)


async def _tried(call: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_REDIS_TIMEOUT_S):
            return await call
    except (RedisError, OSError, TimeoutError):
        return None  # the time to live bounds what comes of it, as the usual algorithm has it


@asynccontextmanager
async def opened(app: Starlette) -> AsyncIterator[None]:
    store = await SqlStore.open(os.environ["SKILLWIRE_DATABASE_URL"])
    service = UsualService(store, os.environ["SKILLWIRE_REDIS_URL"])
    app.routes.append(Route("/api/v1/skills", service.write, methods=["POST"]))
    app.routes.append(Route("/api/v1/skills", lambda _: Response(), methods=["GET"]))
    app.routes.append(Route("/livez", lambda _: Response()))
    app.routes.append(Route("/api/v1/skills/{owner}/{name}", service.read))
    app.routes.append(Route("/api/v1/skills/{owner}/{name}/versions/{version}", service.read))
    listening = asyncio.create_task(service.listen())
    yield
    listening.cancel()
    await asyncio.wait([listening])
    await store.close()


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # narrower there
        await super().startup(sockets)  # type: ignore[arg-type]
        port = self.servers[0].sockets[0].getsockname()[1]
        click.echo(f"skillwire is ready at http://127.0.0.1:{port}/", err=True)


if __name__ == "__main__":
    app = Starlette(lifespan=opened)
    _Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="warning")).run()
