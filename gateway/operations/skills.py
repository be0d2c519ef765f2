"""Skills: reading them, their versions and files; publishing, rolling back, deleting."""

import base64
import binascii
import hashlib
from typing import Annotated, Any

import msgspec
from pydantic import Field

from gateway.envelope import Reply, cached, page, reply
from gateway.operations.table import (
    PAGE_MAX,
    SEQ_MAX,
    Context,
    Operation,
    Params,
    SkillParams,
    VersionParams,
    fingerprint,
)
from gateway.principal import Principal
from gateway.replica import Replica
from services.cache.deps import depends_on
from services.cache.read import Read
from services.cache.space import Space
from services.failures import Invalid
from services.models import OWNER_PATTERN, FileEntry, Published, Skill, Version
from services.skills.catalog import served_file
from services.skills.uploads import PARTS_MAX
from services.skills.view import summary

# Details are made from the view, in less time than a round trip to Redis takes.
_DETAILS = Space("detail", l2=False)
_VERSIONS = Space("versions")
_VERSION = Space("version")
_FILES = Space("blob")
_WRITE_SEEN_S = 1.0


class ListSkills(Params):
    limit: int = Field(50, ge=1, le=PAGE_MAX)
    cursor: str = Field("", max_length=200, description="`next_cursor` of the page before.")
    status: str | None = Field(None, pattern="^(draft|active|inactive|quarantined)$")
    owner: str | None = Field(None, pattern=OWNER_PATTERN)


class Publish(Params):
    zip: str = Field(description="The package as a zip file, in base64.")
    owner: str = Field("main", pattern=OWNER_PATTERN)
    activate: bool = True
    if_match: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="The digest to replace.")


class PublishUpload(Params):
    parts: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        min_length=1, max_length=PARTS_MAX, description="The SHA-256 of each part of the zip, in order."
    )
    owner: str = Field("main", pattern=OWNER_PATTERN)
    activate: bool = True
    if_match: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$", description="The digest to replace.")


class ListVersions(SkillParams):
    limit: int | None = Field(None, ge=1, le=PAGE_MAX, description="All that are left when absent.")
    cursor: str = Field("", pattern=r"^([1-9][0-9]{0,15})?$", description="`next_cursor` of the page before.")


class DeleteSkill(SkillParams):
    hard: bool = Field(False, description="Remove its versions and usage for ever; needs the scope admin.")


class ReadFile(SkillParams):
    path: str = Field(max_length=255, description="The file's path in the package.", examples=["SKILL.md"])
    version: int | None = Field(None, ge=1, le=SEQ_MAX, description="The active version when absent.")


async def list_skills(context: Context, params: ListSkills) -> Reply:
    source = await context.replica.current(context.level)
    view = context.replica.view
    lines, after = view.page(
        context.principal.viewer.sees,
        limit=params.limit,
        after=params.cursor,
        status=params.status,
        owner=params.owner,
    )
    data = page(lines, after, revision=view.revision)
    return Reply(
        data, source, etag=context.replica.tag("skills", view.revision, context.principal.id, fingerprint(params))
    )


async def get_skill(context: Context, params: SkillParams) -> Reply:
    replica = context.replica
    skill = await replica.skill(params.skill_id, context.principal.viewer.sees, context.level)

    async def load() -> bytes:
        depends_on(f"skill:{skill.id}", f"tools:{skill.id}")
        return msgspec.json.encode(_detail(context, skill.id))

    read = await replica.cache.get(_DETAILS, f"detail:{skill.id}", load, level=context.level)
    return cached(read, etag=replica.tag(skill.id, skill.seq))


def peek_skill(replica: Replica, principal: Principal, values: dict[str, str]) -> tuple[Read, str] | None:
    skill = replica.view.find(f"{values['owner']}/{values['name']}")
    if skill is None or not principal.viewer.sees(skill):
        return None
    read = replica.cache.peek(_DETAILS, f"detail:{skill.id}")
    return None if read is None else (read, replica.tag(skill.id, skill.seq))


def _detail(context: Context, skill_id: str) -> dict[str, Any]:
    skill = context.replica.view.get(skill_id, lambda _: True)
    active = skill.active
    tools = [
        {
            "name": tool.name,
            "title": tool.spec.name,
            "description": tool.spec.description,
            "inputSchema": tool.spec.input_schema,
            "outputSchema": tool.spec.output_schema,
        }
        for tool in context.replica.tools.of(skill)
    ]
    return {
        **summary(skill),
        "frontmatter": active.frontmatter if active else {},
        "manifest": active.manifest if active else [],
        "diagnostics": active.diagnostics if active else [],
        "pinned": skill.pinned,
        "deleted_version": skill.deleted_version,
        "tools": tools,
    }


async def list_versions(context: Context, params: ListVersions) -> Reply:
    replica = context.replica
    skill = await replica.skill(params.skill_id, context.principal.viewer.sees, context.level)
    if params.limit is not None or params.cursor:
        return await _page_of_versions(replica, skill, params)
    dep = f"skill:{skill.id}"

    async def load() -> bytes:
        depends_on(dep)
        found = await replica.store.versions(skill.id)
        now = replica.view.get(skill.id, lambda _: True)
        return msgspec.json.encode({"items": [_version(version, now) for version in found], "next_cursor": None})

    read = await replica.cache.get(_VERSIONS, f"versions:{skill.id}", load, level=context.level, deps=(dep,))
    return cached(read, etag=replica.tag("versions", skill.id, skill.seq))


async def _page_of_versions(replica: Replica, skill: Skill, params: ListVersions) -> Reply:
    """Not cached: whoever goes through a long history reads each page once."""
    before = int(params.cursor) if params.cursor else None
    # One more than asked for tells whether there is a next page.
    most = None if params.limit is None else params.limit + 1
    found = await replica.store.versions(skill.id, before=before, limit=most)
    items = [_version(version, skill) for version in found[: params.limit]]
    after = str(items[-1]["version"]) if len(items) < len(found) else None
    tag = replica.tag("versions", skill.id, skill.seq, fingerprint(params))
    return reply({"items": items, "next_cursor": after}, etag=tag)


def peek_versions(replica: Replica, principal: Principal, values: dict[str, str]) -> tuple[Read, str] | None:
    skill = replica.view.find(f"{values['owner']}/{values['name']}")
    if skill is None or not principal.viewer.sees(skill):
        return None
    read = replica.cache.peek(_VERSIONS, f"versions:{skill.id}")
    return None if read is None else (read, replica.tag("versions", skill.id, skill.seq))


async def get_version(context: Context, params: VersionParams) -> Reply:
    replica = context.replica
    skill = await replica.skill(params.skill_id, context.principal.viewer.sees, context.level)
    dep = f"skill:{skill.id}"

    async def load() -> bytes:
        depends_on(dep)
        now, version = await replica.catalog.version(skill.id, params.version, lambda _: True)
        more = {"frontmatter": version.frontmatter, "diagnostics": version.diagnostics}
        return msgspec.json.encode({**_version(version, now), **more})

    key = f"version:{skill.id}@{params.version}"
    read = await replica.cache.get(_VERSION, key, load, level=context.level, deps=(dep,))
    return cached(read, etag=replica.tag("version", skill.id, params.version, skill.seq))


def _version(version: Version, skill: Skill) -> dict[str, Any]:
    return {
        "version": version.version,
        "digest": version.digest,
        "grade": version.grade,
        "description": version.description,
        "manifest": version.manifest,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "active": skill.active is not None and skill.active.version == version.version,
        "pinned": version.version in skill.pinned,
    }


async def read_file(context: Context, params: ReadFile) -> Reply:
    """Text as text, anything else in base64; REST gives the plain bytes (`routes/packages.py`)."""
    version, data = await file_bytes(context, params)
    try:
        content = {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(data).decode()}
    body = {"id": params.skill_id, "version": version.version, "digest": version.digest, "path": params.path}
    return reply({**body, **content}, await context.replica.current())


async def file_bytes(context: Context, params: ReadFile) -> tuple[Version, bytes]:
    """A file through the cache: its content never changes, so it depends on nothing."""
    replica = context.replica
    sees = context.principal.viewer.sees

    async def look() -> tuple[Version, FileEntry]:
        _, version = await replica.catalog.version(params.skill_id, params.version, sees)
        return version, served_file(version, params.path)

    version, entry = await replica.seek(context.level, look)
    return version, await content(context, entry)


async def content(context: Context, entry: FileEntry) -> bytes:
    """What a manifest names, through the cache."""
    replica = context.replica

    async def load() -> bytes:
        return await replica.catalog.blob(entry)

    read = await replica.cache.get(_FILES, f"blob:{entry.sha256}", load)
    if read.tier == "l2" and hashlib.sha256(read.value).hexdigest() != entry.sha256:
        # Whoever can write to Redis must not be able to change what a digest stands for.
        replica.cache.invalidate(f"blob:{entry.sha256}")
        return await load()
    return read.value


async def publish(context: Context, params: Publish) -> Reply:
    try:
        data = base64.b64decode(params.zip, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("`zip` is not base64") from error
    return await publish_zip(context, data, params.owner, params.activate, params.if_match)


async def publish_upload(context: Context, params: PublishUpload) -> Reply:
    data = await context.replica.uploads.join(params.parts)
    return await publish_zip(context, data, params.owner, params.activate, params.if_match)


async def publish_zip(context: Context, data: bytes, owner: str, activate: bool, if_match: str | None) -> Reply:
    published = await context.replica.catalog.publish_zip(
        data, owner=owner, created_by=context.principal.id, activate=activate, if_match=if_match
    )
    return await written(context, published)


async def rollback(context: Context, params: VersionParams) -> Reply:
    principal, replica = context.principal, context.replica
    await replica.skill(params.skill_id, principal.viewer.sees, context.level)
    published = await replica.catalog.rollback(params.skill_id, params.version, principal.id, principal.viewer.sees)
    return await written(context, published)


async def delete_skill(context: Context, params: DeleteSkill) -> Reply:
    principal, replica = context.principal, context.replica
    if params.hard:
        principal.require("admin")
    await replica.skill(params.skill_id, principal.viewer.sees, context.level)
    if params.hard:
        return await written(context, await replica.catalog.remove(params.skill_id, principal.id))
    published = await replica.catalog.delete(params.skill_id, principal.id, principal.viewer.sees)
    return await written(context, published)


async def written(context: Context, published: Published) -> Reply:
    """The answer to a write. It waits, at most `_WRITE_SEEN_S`, until this replica shows the change, so
    that the caller reads its own write here."""
    feed = context.replica.feed
    is_shown = await feed.reach(published.seq, _WRITE_SEEN_S)
    return reply(published, seq=published.seq)._replace(position=feed.position.id if is_shown else None)


OPERATIONS = (
    Operation("list_skills", "A page of the catalog.", "read", ("GET", "/skills"), ListSkills, list_skills),
    Operation(
        "get_skill",
        "A skill and its active version.",
        "read",
        ("GET", "/skills/{owner}/{name}"),
        SkillParams,
        get_skill,
        peek=peek_skill,
    ),
    Operation(
        "list_versions",
        "The versions of a skill, newest first.",
        "read",
        ("GET", "/skills/{owner}/{name}/versions"),
        ListVersions,
        list_versions,
        peek=peek_versions,
    ),
    Operation(
        "get_version",
        "One version of a skill.",
        "read",
        ("GET", "/skills/{owner}/{name}/versions/{version}"),
        VersionParams,
        get_version,
    ),
    Operation(
        "read_skill_file",
        "A file of a skill as text or base64.",
        "read",
        None,
        ReadFile,
        read_file,
    ),
    Operation("publish", "Publish a package as a new version.", "publish", None, Publish, publish),
    Operation(
        "publish_upload",
        "Publish a package whose parts were sent before.",
        "publish",
        ("POST", "/uploads"),
        PublishUpload,
        publish_upload,
    ),
    Operation(
        "rollback",
        "Make a version the active one.",
        "publish",
        ("POST", "/skills/{owner}/{name}/rollback"),
        VersionParams,
        rollback,
    ),
    Operation(
        "activate",
        "Make a version the active one; the same as a rollback.",
        "publish",
        ("POST", "/skills/{owner}/{name}/activate"),
        VersionParams,
        rollback,
    ),
    Operation(
        "delete_skill",
        "Take a skill out of service; its versions stay, unless it is a hard delete.",
        "publish",
        ("DELETE", "/skills/{owner}/{name}"),
        DeleteSkill,
        delete_skill,
    ),
)
