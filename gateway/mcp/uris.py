"""`skill://` URIs (SEP-2640): `skill://<owner>/<name>/<path>`, and `skill://<owner>/@<version>/<name>/<path>`.

Lists name the second form: what a host has verified by its digest can be read back for ever.
The first is an alias of the active version. `@` cannot begin a name, so the two never meet.
"""

from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from services.models import Skill, Version

SKILL_MD = "SKILL.md"


class SkillUri(NamedTuple):
    """`version` is None for the active one; `path` is empty for the skill's root."""

    skill_id: str
    version: int | None
    path: str


def pinned(skill: Skill, version: Version, path: str = SKILL_MD) -> str:
    return f"skill://{skill.owner}/@{version.version}/{skill.name}/{quote(path)}"


def root(skill: Skill) -> str:
    """What the URIs of all files of its active version begin with."""
    return f"skill://{skill.owner}/{skill.name}/"


def watched(uri: str) -> str:
    """What has to change for a resource to be another: the skill's root for a file of its active version."""
    parsed = parse(uri)
    if parsed is None or parsed.version is not None:
        return uri
    return f"skill://{parsed.skill_id}/"


def parse(uri: str) -> SkillUri | None:
    """None for anything that is no skill URI."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme != "skill" or not parts.netloc or parts.query or parts.fragment:
        return None
    segments = [unquote(segment) for segment in parts.path.split("/")[1:]]
    version = None
    if segments and segments[0].startswith("@"):
        if not segments[0][1:].isdecimal() or len(segments[0]) > 16:
            return None
        version = int(segments.pop(0)[1:])
    if not segments or not segments[0]:
        return None
    return SkillUri(f"{parts.netloc}/{segments[0]}", version, "/".join(segments[1:]))
