"""The chain of the audit log: how a record is made, and whether a run of records is what was made.

Idea: the hash of a record covers all of it and the hash of the record before, so that whoever changes,
removes or moves one would have to make every later one anew. With a key that the database does not
have (`SKILLWIRE_AUDIT_KEY`) nobody who only writes the database can; without one, a later hash that was
noted elsewhere shows it.

| what was done to the records         | what is found, at the first record it shows in           |
|--------------------------------------|----------------------------------------------------------|
| a member of one was changed          | `changed`: its hash is not that of its content           |
| one was removed                      | `missing`: the next does not follow the one before it    |
| two were exchanged                   | `out of order`, or `changed` where their seqs were too   |
| the newest ones were removed         | `cut`: the chain ends before a head that was noted       |
| all were made anew from one on       | `wrong key`, `not keyed`, or `rewritten` by a noted head |

A chain that was once keyed goes on with that key: what is sealed without one, or with another, is no
part of it. What is older than the key stays as it is.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from services.audit.nouns import AuditHead, AuditRecord
from services.models import Change
from services.storage.plan import GENESIS
from services.storage.schema import storable

# The form of what is hashed: another one needs another name.
_FORM = b"skillwire audit 1\n"
_KEY_NAMED = b"skillwire audit key"
# In this order, and behind them `data`; the hash covers all members but itself.
HASHED = (
    "seq", "at", "topic", "kind", "subject", "owner", "visibility", "by", "tag", "sealed_at", "key_id",
)  # fmt: skip

Problem = Literal[
    "changed", "missing", "out of order", "wrong key", "not keyed", "cut", "rewritten", "not as the change log has it"
]


class Finding(NamedTuple):
    """The first thing that is wrong with a chain, and the seq where it shows."""

    seq: int
    problem: Problem
    detail: str


class Seal:
    """How records are hashed: with a key, or without one (empty)."""

    def __init__(self, key: str = "") -> None:
        self._key = key.encode()
        # Tells keys apart and says no more of one than the hashes made with it do.
        self.key_id = hmac.digest(self._key, _KEY_NAMED, "sha256").hex()[:8] if key else ""

    def hash(self, record: AuditRecord) -> str:
        """Of its content as it stands, whatever its own `hash` says."""
        content = msgspec.json.encode([getattr(record, name) for name in HASHED])
        # Encoded JSON holds no line break, so nothing of one part can pass for the start of the next.
        hashed = b"\n".join((_FORM + record.prev.encode(), content, record.data))
        keyed = record.key_id != ""
        return hmac.digest(self._key, hashed, "sha256").hex() if keyed else hashlib.sha256(hashed).hexdigest()


def seal(changes: Sequence[Change], before: AuditHead | None, sealed_at: str, by_seal: Seal) -> list[AuditRecord]:
    """The records of these changes, in their order, behind the head."""
    prev = before.hash if before else GENESIS
    records = []
    for change in changes:
        open_ = AuditRecord(
            seq=change.seq,
            at=change.at,
            topic=change.topic,
            kind=change.kind,
            subject=change.dep,
            owner=change.owner,
            visibility=change.visibility,
            by=who(change.data),
            data=change.data,
            tag=change.id.rpartition("-")[2],
            sealed_at=sealed_at,
            key_id=by_seal.key_id,
            prev=prev,
            hash="",
        )
        records.append(msgspec.structs.replace(open_, hash=by_seal.hash(open_)))
        prev = records[-1].hash
    return records


class _Who(msgspec.Struct):
    by: Any = ""


def who(data: bytes) -> str:
    """Who a change's data says has made it, as every database can keep it."""
    try:
        by = msgspec.json.decode(data, type=_Who).by
    except msgspec.MsgspecError:
        return ""
    return storable(by) if isinstance(by, str) else ""


def head_of(record: AuditRecord) -> AuditHead:
    return AuditHead(record.seq, record.hash, record.sealed_at, record.key_id)


def judge(records: Sequence[AuditRecord], before: AuditHead | None, by_seal: Seal) -> Finding | None:
    """The first thing that is wrong with these records, which are to follow the head; None for nothing."""
    seqs = {record.seq for record in records}
    for record in records:
        finding = _judge_content(record, before, by_seal) or _judge_link(record, before, seqs)
        if finding is not None:
            return finding
        before = head_of(record)
    return None


def _judge_content(record: AuditRecord, before: AuditHead | None, by_seal: Seal) -> Finding | None:
    if record.key_id not in ("", by_seal.key_id):
        what = "this is another one" if by_seal.key_id else "none is given"
        return Finding(record.seq, "wrong key", f"it is sealed with the key {record.key_id}, and {what}")
    if before is not None and before.key_id and not record.key_id:
        return Finding(record.seq, "not keyed", f"it is sealed without a key, and {before.seq} is sealed with one")
    if not hmac.compare_digest(record.hash.encode(), by_seal.hash(record).encode()):
        return Finding(record.seq, "changed", "its hash is not that of its content")
    return None


def _judge_link(record: AuditRecord, before: AuditHead | None, seqs: set[int]) -> Finding | None:
    """Whether it is the one after `before`; a chain may begin at any seq."""
    if before is None:
        if record.prev == GENESIS:
            return None
        return Finding(record.seq, "missing", "the records before it are gone: it is not the first of a chain")
    expected = before.seq + 1
    if record.seq < expected:
        return Finding(record.seq, "out of order", f"it stands behind {before.seq}")
    if record.seq > expected and expected in seqs:
        return Finding(expected, "out of order", f"{record.seq} stands in its place")
    if record.seq > expected:
        gone = str(expected) if record.seq == expected + 1 else f"{expected} to {record.seq - 1}"
        return Finding(expected, "missing", f"{gone}: {'never sealed' if record.prev == before.hash else 'gone'}")
    if record.prev != before.hash:
        return Finding(record.seq, "changed", f"it, or {before.seq}, was sealed anew: it names another hash")
    return None


def compare(records: Sequence[AuditRecord], changes: Sequence[Change]) -> Finding | None:
    """Whether the change log says what the records say, as far as it still has their rows."""
    kept = {change.seq: change for change in changes}
    for record in records:
        if record.seq in kept:
            row = _as_sealed(kept[record.seq])
            differs = sorted(name for name, value in row if getattr(record, name) != value)
            if differs:
                return Finding(record.seq, "not as the change log has it", f"the row has another {', '.join(differs)}")
    return None


def _as_sealed(change: Change) -> Iterator[tuple[str, object]]:
    (record,) = seal([change], None, "", Seal())
    for name in (*HASHED, "data"):
        if name not in ("sealed_at", "key_id"):
            yield name, getattr(record, name)
