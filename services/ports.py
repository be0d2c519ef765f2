"""What the business layer needs from the outside, named by what it ignores.

Adapters live beside their technology (`storage/sql.py`, `cache/redis.py`, ...) and are chosen
in `gateway/wiring.py` alone. Each port has one contract suite in `tests/contract`, run on
every adapter.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from services.audit.nouns import AuditHead, AuditQuery, AuditRecord
from services.errors.nouns import Incident, IncidentQuery, KnownIncidents, Level, Solution
from services.models import Change, Draft, Invocation, LedgerEntry, Published, Skill, Usage, Version, Visibility
from services.runs.nouns import Run, RunQuery

# Records of the audit log that are appended at once: what one transaction of any store takes.
APPENDED_MAX = 50
# What somebody had done by hand: packages read again from the watched folder, or cached records forgotten.
ReloadKind = Literal["reload.folder", "reload.skill", "cache.invalidated"]
_POSITION = re.compile(r"([0-9A-Za-z]{1,32})-(\d{1,15})-[0-9a-f]{8}")


class Position(NamedTuple):
    """A place in the change log: `seq` rows are before it, `id` names the last of them."""

    epoch: str
    seq: int
    id: str

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """The place that an event's id names; None for anything else."""
        found = _POSITION.fullmatch(text)
        return cls(found[1], int(found[2]), text) if found else None


class CatalogSnapshot(NamedTuple):
    """All skills as of one position, read in one database snapshot."""

    position: Position
    skills: list[Skill]
    streams: dict[tuple[str, str, str], str]
    """(topic, owner, visibility) -> id of its newest change."""


class InvocationQuery(NamedTuple):
    """Newest first. `since` (inclusive) and `until` (exclusive) are RFC 3339 stamps; `before` is the id to
    go on after."""

    limit: int
    skill_id: str | None = None
    since: str | None = None
    before: str | None = None
    caller: str | None = None
    ok: bool | None = None
    until: str | None = None


class Swept(NamedTuple):
    """What a sweep removed; `bytes` is of the blobs, without temporary files."""

    blobs: int
    bytes: int


class ChangeSink(Protocol):
    """Follows the log. Called in seq order, once per row, after the row is committed.

    A sink must not block and must not raise for a row it does not know.
    """

    def apply(self, changes: Sequence[Change]) -> None: ...

    def restart(self, snapshot: CatalogSnapshot) -> None:
        """What was applied is not the log's history any more, or is not known to lead to it: `snapshot` is
        the state now, and the next row is the one after its position."""
        ...


class ChangeReader(Protocol):
    """The read side of the change log."""

    async def head(self) -> Position: ...

    async def tail(self, after: int, limit: int) -> list[Change]:
        """Up to `limit` changes with seq > `after`, in seq order; raises `Unavailable`."""
        ...


class MetadataStore(ChangeReader, Protocol):
    """Skills, versions, the change log and the ledgers: the truth (L3).

    Every method raises `Unavailable` when the database does not answer. Writes commit
    together with their change rows or not at all.
    """

    async def snapshot(self) -> CatalogSnapshot: ...

    async def fence(self, old_epoch: str) -> Position:
        """Gives the log a new epoch, unless it has another than `old_epoch` by now; answers its end."""
        ...

    async def trim(self, keep_rows: int, batch: int, *, sealed: int) -> int:
        """Removes up to `batch` of the oldest change rows, never one of the newest `keep_rows` (at least
        1), nor one after seq `sealed`; answers how many."""
        ...

    async def publish(self, drafts: Sequence[Draft]) -> list[Published]:
        """Commits all drafts in one transaction, in order. A stale `if_match` raises `Conflict`
        and commits none of them."""
        ...

    async def activate(self, skill_id: str, version: int, by: str) -> Published:
        """Moves the active pointer. Raises `NotFound`, or `Invalid` for a quarantined version."""
        ...

    async def deactivate(self, skill_id: str, by: str) -> Published:
        """Soft delete: versions stay. Raises `NotFound` when there is nothing to delete."""
        ...

    async def restore(self, skill_id: str, by: str) -> Published:
        """Puts a deleted skill back in service with the version that was active when it was deleted.
        Raises `NotFound`, or `Conflict` for a skill that is not deleted."""
        ...

    async def remove(self, skill_id: str, by: str) -> Published:
        """Hard delete: versions, usage and ledger entries go; a later publish continues the numbering.
        Raises `NotFound`."""
        ...

    async def pin(self, skill_id: str, version: int, pinned: bool, by: str) -> Published:
        """Keeps a version from `prune_versions`, or no longer. Raises `NotFound`."""
        ...

    async def remove_version(self, skill_id: str, version: int, by: str) -> Published:
        """Removes one version for good; its number is never used again. Raises `NotFound`, and `Conflict` for
        the active one, a pinned one, and one that a restore or a draft would be left without."""
        ...

    async def prune_versions(self, skill_id: str, keep: int) -> int:
        """Removes the versions older than the newest `keep` (at least 1), never the active one, the one
        that was active when the skill was deleted, or a pinned one; answers how many."""
        ...

    async def adopt(self, skill: Skill, versions: Sequence[Version]) -> Published:
        """Takes over a skill of another deployment: adds these versions, ascending and after those that
        are here, and makes the skill what it says. Raises `Conflict` for numbers that are taken."""
        ...

    def blobs_in_use(self) -> AsyncIterator[str]:
        """Every sha256 that a stored version names, in no order, possibly repeated. A version that is
        committed meanwhile may be missing."""
        ...

    async def version(self, skill_id: str, version: int) -> Version:
        """Raises `NotFound`."""
        ...

    async def versions(self, skill_id: str, *, before: int | None = None, limit: int | None = None) -> list[Version]:
        """Versions, newest first: all, or at most `limit` with a number below `before`; empty for an
        unknown skill."""
        ...

    async def ledger(self, source: str) -> dict[str, LedgerEntry]:
        """The last state of every path of a watched folder, by path."""
        ...

    async def note(self, entries: Sequence[LedgerEntry]) -> None:
        """Replaces ledger entries; an entry with an empty digest and no diagnostics is removed."""
        ...

    async def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        """Takes or renews a lease; False while another holder's has not run out."""
        ...

    async def release_lease(self, name: str, holder: str) -> None: ...

    async def lease_holder(self, name: str) -> str | None:
        """Who holds it now; None when it was released or has run out."""
        ...

    async def record(self, invocations: Sequence[Invocation]) -> None:
        """Keeps each invocation and counts it in its version's usage, once however often it is given."""
        ...

    async def invocations(self, query: InvocationQuery) -> list[Invocation]: ...

    async def expire_invocations(self, before: str, batch: int) -> int:
        """Removes up to `batch` of the oldest invocations that ended before the stamp; answers how many."""
        ...

    async def usage(self, skill_id: str) -> list[Usage]:
        """By version, newest first; expired invocations stay counted."""
        ...

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Persisted embeddings (little-endian float32) by key, for those that exist."""
        ...

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None: ...

    async def secret(self, name: str) -> bytes:
        """32 random bytes of this deployment, made at the first asking; the same for all replicas."""
        ...

    async def tool_ranking(self) -> tuple[str, ...]:
        """The most used tools by name, most used first; empty before the first ranking."""
        ...

    async def rank_tools(self, names: Sequence[str]) -> int:
        """Replaces the ranking for all replicas; answers the seq of its change, which carries the names."""
        ...

    async def note_reload(self, kind: ReloadKind, skill_id: str | None, by: str, counts: dict[str, int]) -> int:
        """Adds a row that tells of a reload of one skill, or of all, and is no change of any; answers its seq."""
        ...


class RunStore(Protocol):
    """Runs, of which every change is a row of the change log (topic `runs`).

    Every method raises `Unavailable` when the database does not answer.
    """

    async def create(self, run: Run) -> Run:
        """Answers it with the seq of its change."""
        ...

    async def run(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        ...

    async def change(self, run_id: str, rule: Callable[[Run], Run | None]) -> Run:
        """Makes of the run what `rule` makes of it, None for no change; answers it as it is then. Of two
        changes at once the second is made of what the first has left, for which its rule is called again.
        Raises `NotFound`."""
        ...

    async def runs(self, query: RunQuery) -> list[Run]: ...

    async def working(self) -> list[Run]:
        """All that are `working`, on whatever replica."""
        ...

    async def expire_runs(self, before: str, batch: int) -> int:
        """Removes up to `batch` runs that expire before the stamp, whatever they do; answers how many."""
        ...


class AuditStore(Protocol):
    """The audit log: a chain of records, one for each row of the change log, that outlives the rows.

    Every method raises `Unavailable` when the database does not answer.
    """

    async def audit_head(self) -> AuditHead | None:
        """The newest record; None before the first."""
        ...

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """Adds all of them (at most `APPENDED_MAX`) or none. Raises `Conflict` unless the first one's
        `prev` is the head, so that of two who append at once one does and the chain stays one."""
        ...

    async def audit(self, query: AuditQuery) -> list[AuditRecord]: ...


class IncidentStore(Protocol):
    """Incidents, which are occurrences and no changes, and their solutions and levels, which are.

    Every method raises `Unavailable` when the database does not answer.
    """

    async def record(self, incidents: Sequence[Incident]) -> list[Incident]:
        """Adds each one's `count` to what is known of it and answers all as they are now. What a batch
        counts is counted twice if it is given again after the answer to its commit was lost."""
        ...

    async def incident(self, incident_id: str) -> Incident:
        """Raises `NotFound`."""
        ...

    async def incidents(self, query: IncidentQuery) -> list[Incident]: ...

    async def known(self, solved_max: int) -> KnownIncidents:
        """All marked ones; of those with solutions the `solved_max` seen last."""
        ...

    async def solutions(self, incident_ids: Sequence[str]) -> list[Solution]: ...

    async def add_solution(self, solution: Solution, owner: str, visibility: Visibility) -> int:
        """Answers the seq of its change. Raises `Conflict` when the incident has too many."""
        ...

    async def count_outcome(self, incident_id: str, solution_id: str, worked: bool) -> Solution:
        """Raises `NotFound`."""
        ...

    async def mark(
        self, incident_id: str, level: Level, by: str, owner: str, visibility: Visibility
    ) -> tuple[Incident, int]:
        """Sets the level; answers the incident and the seq of the change. Raises `NotFound`."""
        ...


class BlobStore(Protocol):
    """Content-addressed bytes; a key is the SHA-256 of the value in hex."""

    async def has(self, sha256: str) -> bool:
        """Whether it is there; one that is counts as touched."""
        ...

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        """Returns when all are durable. Blobs that exist are touched, not written."""
        ...

    async def get(self, sha256: str) -> bytes:
        """Verified bytes. Raises `NotFound`; a blob that does not match its name raises `Unavailable`."""
        ...

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        """Writes `path -> sha256` as a folder at `target` (which must not exist), atomically."""
        ...

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        """Removes blobs that nobody has put for `older_than_s` and that `in_use`, read after they were
        listed, does not name; and temporary files of that age. A blob put again meanwhile stays.

        The age must be longer than any publish takes from its blobs to its commit.
        """
        ...

    async def remove_leftovers(self) -> int:
        """Removes what writers that crashed long ago had not finished; answers how many."""
        ...

    async def ping(self) -> None:
        """Raises `Unavailable` when blobs can neither be read nor written now."""
        ...

    async def close(self) -> None: ...


class SecondTier(Protocol):
    """L2: an untrusted accelerator. Never raises: a failing tier answers like an empty one."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Never puts an older record in the place of a newer one; an empty value removes what is there."""
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Texts to unit vectors. `model` names the vector space; vectors of two models never mix."""

    @property
    def model(self) -> str: ...

    @property
    def dim(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """One little-endian float32 unit vector of `dim` numbers per text, in order; raises `Unavailable`."""
        ...

    async def close(self) -> None: ...


class Hit(NamedTuple):
    """`score` is the cosine similarity for a vector index."""

    id: str
    score: float


class VectorIndex(Protocol):
    """Nearest neighbours by cosine. The index is derived: it can always be rebuilt from the log."""

    async def upsert(self, vectors: Mapping[str, bytes]) -> None: ...

    async def delete(self, ids: Sequence[str]) -> None: ...

    async def search(self, vector: bytes, limit: int) -> list[Hit]:
        """Best first, at most `limit`."""
        ...

    async def count(self) -> int: ...

    async def close(self) -> None: ...
