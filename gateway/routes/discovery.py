"""Agent Skills Discovery v0.2.0: any agent's installer finds the skills and takes them as files.

`/.well-known/agent-skills/index.json` names every served skill the caller sees, below `/{owner}` or
`/{owner}/{name}` only those. A skill of one file is that file, others are archives whose bytes never
change, each named with its digest. An index that was made before goes out as soon as its request has been read.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import msgspec
from cachetools import LRUCache
from fastapi import APIRouter, Path, Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.lane import Asked
from gateway.mcp import uris
from gateway.operations.skills import ReadFile, file_bytes
from gateway.operations.table import SEQ_MAX, Context
from gateway.replica import Replica
from gateway.routes.rest import context_of
from notifier.events import Viewer
from notifier.raw import Whole
from services import metrics
from services.cache.flight import Flights
from services.models import NAME_PATTERN, OWNER_PATTERN, Skill, Version
from services.skills.bundle import tar_gz
from services.skills.catalog import served_file

SCHEMA = "https://schemas.agentskills.io/discovery/0.2.0/schema.json"
ARCHIVES_BYTES_MAX = 32 * 1024 * 1024
DIGESTS_MAX = 20_000
ENTRIES_MAX = 20_000
# The second is where clients of before look.
_DOCUMENTS = ("/.well-known/agent-skills/index.json", "/.well-known/skills/index.json")
_INDEX = re.compile(f"(?:/([^/]+)(?:/([^/]+))?)?(?:{'|'.join(map(re.escape, _DOCUMENTS))})")
_INDEX_CACHE = "private, no-cache"
_DESCRIPTION_MAX = 1024
_METHODS = ["GET", "HEAD"]
_INDEXES_MAX = 64

Owner = Annotated[str, Path(pattern=OWNER_PATTERN)]
Number = Annotated[int, Path(ge=1, le=SEQ_MAX)]
Name = Annotated[str, Path(pattern=NAME_PATTERN, max_length=64)]


class Discovery:
    """Indexes and artifacts of one replica, kept encoded; an index is good until the catalog changes. `close` it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._indexes: LRUCache[tuple[Viewer, str, str], tuple[str, bytes]] = LRUCache(_INDEXES_MAX)
        self._digests: LRUCache[str, str] = LRUCache(DIGESTS_MAX)
        self._entries: LRUCache[tuple[str, int, str], bytes] = LRUCache(ENTRIES_MAX)
        self._archives: LRUCache[str, bytes] = LRUCache(ARCHIVES_BYTES_MAX, getsizeof=len)
        self._flights: Flights[tuple[str, bytes]] = Flights()

    async def close(self) -> None:
        await self._flights.close()

    async def index(self, context: Context, owner: str, name: str) -> tuple[str, bytes]:
        """An entity tag and the document. An empty `owner` or `name` stands for all."""
        context.principal.require("read")
        await self._replica.current(context.level)
        tag = self._replica.tag("index", self._replica.view.revision)
        viewer = context.principal.viewer
        kept = self._indexes.get((viewer, owner, name))
        if kept is not None and kept[0] == tag:
            return kept
        # The first after a start reads every package (decision 0053): once, however many ask for it meanwhile.
        key = repr((tag, viewer, owner, name))
        return await self._flights.load(key, partial(self._made_index, context, tag, owner, name))

    async def _made_index(self, context: Context, tag: str, owner: str, name: str) -> tuple[str, bytes]:
        entries = [await self._entry(context, skill) for skill in self._named(context, owner, name)]
        made = (tag, b'{"$schema":"%b","skills":[%b]}' % (SCHEMA.encode(), b",".join(entries)))
        self._indexes[(context.principal.viewer, owner, name)] = made
        return made

    def kept(self, viewer: Viewer, owner: str, name: str) -> tuple[str, bytes] | None:
        """`index`, if it was made before and holds under the bounded level."""
        kept = self._indexes.get((viewer, owner, name))
        if kept is None or not self._replica.feed.is_fresh:
            return None
        return kept if kept[0] == self._replica.tag("index", self._replica.view.revision) else None

    async def archive(self, context: Context, skill_id: str, number: int) -> tuple[str, bytes]:
        """The archive of a version and its digest. Raises `NotFound`."""
        context.principal.require("read")
        replica, sees = self._replica, context.principal.viewer.sees
        _, version = await replica.seek(context.level, lambda: replica.catalog.version(skill_id, number, sees))
        data = self._archives.get(version.digest)
        if data is None:
            files = {entry.path: await self._file(context, skill_id, version, entry.path) for entry in version.manifest}
            data = tar_gz(files)
            if len(data) <= ARCHIVES_BYTES_MAX:
                self._archives[version.digest] = data
        digest = self._digests[version.digest] = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return digest, data

    def _named(self, context: Context, owner: str, name: str) -> Iterator[Skill]:
        for skill in self._replica.view.served(context.principal.viewer.sees):
            if owner in ("", skill.owner) and name in ("", skill.name):
                yield skill

    async def _entry(self, context: Context, skill: Skill) -> bytes:
        """Encoded; of one version it is always the same."""
        version = skill.active
        assert version is not None, "a served skill has an active version"
        key = (skill.id, version.version, version.digest)  # a restored database gives a number out again
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = msgspec.json.encode(await self._made(context, skill, version))
        return entry

    async def _made(self, context: Context, skill: Skill, version: Version) -> dict[str, Any]:
        entry = {
            "name": skill.name,
            "description": version.description[:_DESCRIPTION_MAX],
            "owner": skill.owner,
            "version": version.version,
            "manifest_digest": version.digest,
        }
        base = f"/.well-known/agent-skills/{skill.owner}/{skill.name}/{version.version}"
        if len(version.manifest) == 1:
            file = version.manifest[0]
            return {**entry, "type": "skill-md", "url": f"{base}/{file.path}", "digest": f"sha256:{file.sha256}"}
        digest = self._digests.get(version.digest)
        if digest is None:
            digest, _ = await self.archive(context, skill.id, version.version)
        return {**entry, "type": "archive", "url": f"{base}/skill.tar.gz", "digest": digest}

    async def _file(self, context: Context, skill_id: str, version: Version, path: str) -> bytes:
        served_file(version, path)
        owner, name = skill_id.split("/")
        return (await file_bytes(context, ReadFile(owner=owner, name=name, path=path, version=version.version)))[1]


class DiscoveryLane:
    """Indexes that are kept."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery

    def takes(self, scope: Scope) -> bool:
        return bool(scope["method"] == "GET" and not scope["query_string"] and scope["path"].endswith(_DOCUMENTS))

    def answer(self, asked: Asked) -> Whole | None:
        found = _INDEX.fullmatch(asked.scope["path"])
        if found is None or b"x-consistency" in asked.headers or "read" not in asked.principal.scopes:
            return None
        kept = self._discovery.kept(asked.principal.viewer, found[1] or "", found[2] or "")
        if kept is None:
            return None
        tag, data = kept
        head = b'etag: "%b"\r\ncache-control: %b\r\n' % (tag.encode(), _INDEX_CACHE.encode())
        metrics.answers.from_lane += 1
        if _has(asked.headers.get(b"if-none-match", b"").decode("latin-1"), tag):
            return Whole(304, head, b"")
        return Whole(200, b"%bcontent-length: %d\r\ncontent-type: application/json\r\n" % (head, len(data)), data)


def discovery_router(replica: Replica, discovery: Discovery) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    async def answer(request: Request, owner: str = "", name: str = "") -> Response:
        tag, data = await discovery.index(context_of(request, replica), owner, name)
        return _answer(request, tag, data, "application/json", _INDEX_CACHE)

    async def all_skills(request: Request) -> Response:
        return await answer(request)

    async def of_owner(request: Request, owner: Owner) -> Response:
        return await answer(request, owner)

    async def of_name(request: Request, owner: Owner, name: Name) -> Response:
        return await answer(request, owner, name)

    for document in _DOCUMENTS:
        router.add_api_route(document, all_skills, methods=_METHODS)
        router.add_api_route(f"/{{owner}}{document}", of_owner, methods=_METHODS)
        router.add_api_route(f"/{{owner}}/{{name}}{document}", of_name, methods=_METHODS)

    @router.api_route("/.well-known/agent-skills/{owner}/{name}/{version}/skill.tar.gz", methods=_METHODS)
    async def archive(request: Request, owner: Owner, name: Name, version: Number) -> Response:
        digest, data = await discovery.archive(context_of(request, replica), f"{owner}/{name}", version)
        return _answer(request, digest, data, "application/gzip", "private, immutable, max-age=31536000")

    @router.api_route("/.well-known/agent-skills/{owner}/{name}/{version}/SKILL.md", methods=_METHODS)
    async def skill_md(request: Request, owner: Owner, name: Name, version: Number) -> Response:
        context = context_of(request, replica)
        context.principal.require("read")
        _, data = await file_bytes(context, ReadFile(owner=owner, name=name, path=uris.SKILL_MD, version=version))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return _answer(request, digest, data, "text/markdown; charset=utf-8", "private, immutable, max-age=31536000")

    return router


def _answer(request: Request, tag: str, data: bytes, media_type: str, cache: str) -> Response:
    headers = {"etag": f'"{tag}"', "cache-control": cache}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type)


def _has(if_none_match: str, tag: str) -> bool:
    return f'"{tag}"' in if_none_match or if_none_match.strip() == "*"
