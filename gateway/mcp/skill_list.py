"""`skills/list` as bytes: each skill's entry is encoded once, when it has changed.

The SDK encodes and judges every entry anew after a change of one, which takes 30 ms for 400 skills;
whoever was told of a change and reads the list would wait for it.
"""

from typing import Any

import msgspec

from gateway.mcp.context import cache_hints
from gateway.mcp.skills import PAGE, is_cursor, is_listable, skill_entry
from notifier.events import Viewer
from services.models import Skill, Version
from services.skills.view import CatalogView

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
