"""Encoded answers of MCP reads, each good until what it was made from changes in the log."""

import msgspec

from gateway.mcp import uris
from notifier.events import Viewer
from services.changes.log import ChangeFeed
from services.skills.view import CatalogView

BYTES_MAX = 32 * 1024 * 1024
ANSWER_BYTES_MAX = 4 * 1024 * 1024


class Key(msgspec.Struct, frozen=True, gc=False):
    """Who sees the same gets the same: nothing kept for one viewer is given to another."""

    viewer: Viewer
    method: str
    argument: str


class State(msgspec.Struct, frozen=True, gc=False):
    """What an answer was made from. `skill` is empty for lists, which any change of the catalog ends."""

    epoch: str
    seq: int
    skill: str


class Answer(msgspec.Struct, frozen=True):
    state: State
    data: bytes


class Answers:
    """At most `BYTES_MAX`; what was kept first makes room first. Reads are plain calls."""

    def __init__(self, feed: ChangeFeed, view: CatalogView, *, bytes_max: int = BYTES_MAX) -> None:
        self._feed = feed
        self._view = view
        self._bytes_max = bytes_max
        self._kept: dict[Key, Answer] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def state(self, argument: str) -> State | None:
        """What an answer made now is made from; None for a URI that names no skill here."""
        epoch = self._feed.position.epoch
        if not argument.startswith("skill://"):
            return State(epoch, self._view.revision, "")
        parsed = uris.parse(argument)
        skill = self._view.find(parsed.skill_id) if parsed else None
        return State(epoch, skill.seq, skill.id) if skill else None

    def find(self, key: Key) -> bytes | None:
        """None unless this replica is fresh and nothing the answer depends on has changed."""
        kept = self._kept.get(key)
        if kept is None or not self._feed.is_fresh:
            return None
        made_from = kept.state
        if made_from.skill:
            skill = self._view.find(made_from.skill)
            seq = skill.seq if skill else 0
        else:
            seq = self._view.revision
        if seq == made_from.seq and self._feed.position.epoch == made_from.epoch:
            return kept.data
        self._drop(key)
        return None

    def keep(self, key: Key, state: State, data: bytes) -> None:
        """`state` was taken before the answer was made."""
        if len(data) > ANSWER_BYTES_MAX:
            return
        self._drop(key)
        self._kept[key] = Answer(state, data)
        self.bytes += len(data)
        while self.bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self.bytes -= len(dropped.data)
