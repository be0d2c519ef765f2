"""What one write will commit, computed from what was read and from nothing else.

A plan numbers, chains and links its change rows behind the end of the log it was made for. It
may be committed only while the log still ends there: every write of a skill, a version, a
stream or a solution moves that end, so the end alone says whether what was read still holds.
The counter row is what every writer must take to commit, hence commit order is seq order; an
auto-increment column would not give that on PostgreSQL (a transaction may take 1 and commit
after 2). `docs/decisions/0009-plan-and-compare-and-set.md` says why writes are made so.
"""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from services.clock import utc_now
from services.models import Change, LedgerEntry, Skill, Version, Visibility

NAMESPACE = "main"
GENESIS = "0" * 64

Row = dict[str, Any]
Stream = tuple[str, str, str]
"""(topic, owner, visibility)."""


class ChangeBody(msgspec.Struct, frozen=True):
    """What a row keeps: `data` for subscribers, `skill` for the views."""

    data: msgspec.Raw
    skill: Skill | None = None


class LogEnd(NamedTuple):
    """The newest row's number and chained hash."""

    seq: int
    hash: str


def change_id(epoch: str, seq: int, chained: str) -> str:
    return f"{epoch}-{seq}-{chained[:8]}"


def in_epoch(epoch: str, id_: str) -> str:
    """A stored id as it is called now: the log may have been given a new epoch since it was written."""
    return f"{epoch}-{id_.partition('-')[2]}" if id_ else ""


class WritePlan:
    """Rows to write, by table, and `assumed`, the end of the log they fit behind.

    `newest` are the streams as they were read: of at least every owner the plan appends for.
    """

    def __init__(self, epoch: str, end: LogEnd, newest: Mapping[Stream, str]) -> None:
        self._epoch = epoch
        self._newest = dict(newest)
        self.assumed = self.end = end
        self.changes: list[Row] = []
        self.streams: dict[Stream, str] = {}
        self.versions: list[Row] = []
        self.skills: dict[str, Row] = {}
        self.states: dict[str, Skill] = {}
        self.ledger: dict[tuple[str, str], Row] = {}
        self.pruned: list[tuple[str, int]] = []
        self.removed: list[str] = []
        self.solutions: list[Row] = []
        self.levels: dict[str, str] = {}
        self.runs: dict[str, Row] = {}
        self.documents: dict[str, Row] = {}

    def fork(self) -> "WritePlan":
        """A plan that goes on from this one, for a write that may turn out to be refused: this one stays as it is."""
        twin = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict):
                setattr(twin, name, value.copy())
        return twin

    @property
    def next_seq(self) -> int:
        """What the next row will be numbered."""
        return self.end.seq + 1

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to commit: what was asked for is so already."""
        return not (self.changes or self.ledger)

    def append(
        self,
        *,
        topic: str,
        kind: str,
        dep: str,
        owner: str,
        visibility: Visibility,
        data: dict[str, Any],
        skill: Skill | None = None,
    ) -> int:
        """Adds one change row and answers its seq."""
        stream = (topic, owner, visibility)
        row: Row = {
            "ns": NAMESPACE,
            "seq": self.next_seq,
            "prev": self._newest.get(stream, ""),
            "topic": topic,
            "kind": kind,
            "dep": dep,
            "owner": owner,
            "visibility": visibility,
            "at": utc_now(),
            "body": msgspec.json.encode(ChangeBody(msgspec.Raw(msgspec.json.encode(data)), skill)),
        }
        content = {name: value for name, value in row.items() if name != "body"}
        chained = hashlib.sha256(self.end.hash.encode())
        chained.update(msgspec.json.encode(content))
        chained.update(row["body"])
        row["hash"] = chained.hexdigest()
        self.end = LogEnd(row["seq"], row["hash"])
        self.streams[stream] = self._newest[stream] = change_id(self._epoch, *self.end)
        self.changes.append(row)
        return self.end.seq

    def add_version(self, skill_id: str, version: Version) -> None:
        self.versions.append({
            "skill_id": skill_id,
            "version": version.version,
            "digest": version.digest,
            "body": msgspec.json.encode(version),
        })  # fmt: skip

    def put_skill(self, skill: Skill) -> None:
        """The skill as it will be; a later call for the same one replaces it."""
        self.states[skill.id] = skill
        self.skills[skill.id] = {
            "id": skill.id,
            "owner": skill.owner,
            "name": skill.name,
            "visibility": skill.visibility,
            "status": skill.status,
            "seq": skill.seq,
            "last_version": skill.last_version,
            "active_version": skill.active.version if skill.active else None,
            "pinned": ",".join(map(str, skill.pinned)) or None,
            "deleted_version": skill.deleted_version,
        }

    def prune(self, skill_id: str, version: int) -> None:
        """Has one version removed."""
        self.pruned.append((skill_id, version))

    def remove(self, skill_id: str) -> None:
        """Has everything removed that is kept of a skill beside its row."""
        self.removed.append(skill_id)

    def put_ledger(self, entry: LedgerEntry) -> None:
        self.ledger[entry.source, entry.path] = ledger_row(entry)

    def stream_rows(self) -> list[Row]:
        return [
            {"ns": NAMESPACE, "topic": topic, "owner": owner, "visibility": visibility, "change_id": newest}
            for (topic, owner, visibility), newest in self.streams.items()
        ]


def ledger_row(entry: LedgerEntry) -> Row:
    return {
        "source": entry.source,
        "path": entry.path,
        "digest": entry.digest,
        "skill_id": entry.skill_id,
        "diagnostics": msgspec.json.encode(entry.diagnostics),
    }


def read_change(epoch: str, row: Any) -> Change:
    """A row of `schema.changes` as the rest of the system sees it."""
    body = msgspec.json.decode(row.body, type=ChangeBody)
    return Change(
        id=change_id(epoch, row.seq, row.hash),
        prev=in_epoch(epoch, row.prev),
        seq=row.seq,
        topic=row.topic,
        kind=row.kind,
        dep=row.dep,
        owner=row.owner,
        visibility=row.visibility,
        at=row.at,
        data=bytes(body.data),
        skill=body.skill,
    )
