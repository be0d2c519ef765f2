"""`skills/list` as bytes: each skill's entry is encoded once, when it has changed.

The SDK encodes and judges every entry anew after a change of one, which takes 30 ms for 400 skills;
whoever was told of a change and reads the list would wait for it.
"""

from typing import Any

import msgspec

from gateway.mcp import uris
from gateway.mcp.wire import DIGEST_META, VERSION_META, cache_hints
from notifier.events import Viewer
from services.models import Skill, Version
from services.skills.view import CatalogView

# Clients that do not page see this many; the largest public collection has 2,451 skills.
PAGE = 1000

_encode = msgspec.json.Encoder().encode


class SkillList:
    """Pages of the view as it is now; `server_meta` is what every answer's `_meta` says of the server."""

    def __init__(self, view: CatalogView, server_meta: dict[str, Any]) -> None:
        self._view = view
        self._server_meta = server_meta
        self._entries: dict[str, tuple[Version, bytes]] = {}

    def page(self, viewer: Viewer, cursor: str) -> bytes | None:
        """The answer up to where its id follows; None for a cursor that was not given out here."""
        if cursor and not is_cursor(cursor):
            return None
        entries: list[bytes] = []
        last, more = "", {}
        for skill in self._view.served(viewer.sees, after=cursor):
            if not is_listable(skill):
                continue
            if len(entries) == PAGE:
                more = {"nextCursor": last}
                break
            entries.append(self._entry(skill))
            last = skill.id
        if len(self._entries) > 2 * len(self._view):  # of skills that are gone
            self._entries.clear()
        rest = {**more, **cache_hints(self._view.revision)}
        rest["_meta"] |= self._server_meta
        return b'{"jsonrpc":"2.0","result":{"skills":[%b],%b' % (b",".join(entries), _encode(rest)[1:])

    def _entry(self, skill: Skill) -> bytes:
        active = skill.active
        assert active is not None, "what is served has an active version"
        known = self._entries.get(skill.id)
        if known is None or known[0] is not active:  # the view has another object after every change
            known = self._entries[skill.id] = active, _encode(skill_entry(skill, active))
        return known[1]


def is_listable(skill: Skill) -> bool:
    """SEP-2640: the last segment of the path equals the frontmatter's name."""
    return skill.active is not None and skill.active.frontmatter.get("name") == skill.name


def skill_entry(skill: Skill, version: Version) -> dict[str, Any]:
    return {
        "uri": uris.pinned(skill, version),
        "frontmatter": version.frontmatter,
        "resources": [
            {
                "uri": uris.pinned(skill, version, entry.path),
                "digest": f"sha256:{entry.sha256}",
                "size": entry.size,
            }
            for entry in version.manifest
        ],
        "_meta": {VERSION_META: version.version, DIGEST_META: version.digest},
    }


def is_cursor(cursor: str) -> bool:
    """Whether it has the form of those given out here: a skill's id."""
    return cursor.count("/") == 1
