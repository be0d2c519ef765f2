"""What the audit log talks about, as immutable values."""

from typing import Any

import msgspec

from services.models import Visibility


class AuditRecord(msgspec.Struct, frozen=True, gc=False):
    """A change of the log, sealed: what was changed, when and by whom, chained to the record before it.

    `seq` is the change's own. `subject` is its `dep`. `by` is who asked for it, empty where its data does
    not say: nobody did, or only the principal may know. `tag` are the first 8 hex digits of the row's
    hash, as in its id. `data` is the change's JSON as subscribers see it. `sealed_at` is when the record was made.
    `key_id` names the key of an HMAC-SHA256, and is empty for a plain SHA-256. `prev` is the `hash` of
    the record before, 64 zeros for the first.
    """

    seq: int
    at: str
    topic: str
    kind: str
    subject: str
    owner: str
    visibility: Visibility
    by: str
    data: bytes
    tag: str
    sealed_at: str
    key_id: str
    prev: str
    hash: str

    def shown(self) -> dict[str, Any]:
        """For people and programs, with the data as the JSON it is."""
        return {**msgspec.structs.asdict(self), "data": msgspec.Raw(self.data)}


class AuditHead(msgspec.Struct, frozen=True, gc=False):
    """The newest record: the whole chain before it follows from its hash."""

    seq: int
    hash: str
    sealed_at: str
    key_id: str = ""


class AuditQuery(msgspec.Struct, frozen=True, gc=False):
    """Newest first, older than seq `before`; or, with `after`, oldest first and newer than that.

    `skill` finds changes of a skill, of its tools, and reloads of it. `since` (inclusive) and `until`
    (exclusive) are RFC 3339 stamps of the change.
    """

    limit: int
    after: int | None = None
    before: int | None = None
    skill: str | None = None
    by: str | None = None
    kind: str | None = None
    topic: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Of `skill`; empty for all."""
        return () if self.skill is None else tuple(f"{kind}:{self.skill}" for kind in ("skill", "tools", "reloads"))
