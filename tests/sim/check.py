"""What clients saw, judged: registers with one growing version per key, so every rule is linear.

A read that returned version v of a key was wrong if version v+1 was already due by the level the
reader had asked for:

    bounded       v+1 was committed more than `DELTA_S` before the read was invoked (unless labelled stale)
    lag           v+1 was committed more than the answer's own `lag_s` before, labelled stale or not
    session       v+1 has a seq the session had told
    linearizable  v+1 was committed before the read was invoked
    future        v was never committed, or only after the read had returned
    error         a bounded read failed although every load could end in time
    audit         the cache's own audit found a stale record in a history without one
    recovery      the faults were over, and an answer was still old, labelled or an error, or the run had no end

Monotonic reads are not promised under the bounded level, so they are no rule: a replica may load
the newest value and then take an older one, still within the bound, from another replica's L2.
"""

import hashlib
from dataclasses import dataclass, field

from services.changes.levels import BOUNDED, Level
from services.changes.log import DELTA_S

# `Bound.lag_s` is rounded to milliseconds.
_ROUNDING_S = 0.001


@dataclass
class Write:
    """`acked_s` is None when the writer died, or gave up, before it learned of the commit."""

    key: str
    version: int
    seq: int
    committed_s: float
    acked_s: float | None = None


@dataclass
class ReadSeen:
    """`versions` is empty when the read failed with `error`."""

    host: str
    level: Level
    invoked_s: float
    returned_s: float
    versions: dict[str, int]
    tier: str = ""
    stale: bool = False
    lag_s: float = DELTA_S
    error: str = ""
    recovery: bool = False


@dataclass
class Violation:
    rule: str
    key: str
    read: ReadSeen
    late_s: float


@dataclass
class History:
    """`faults` are the moments at which something was broken, for whoever reads it."""

    writes: dict[str, list[Write]] = field(default_factory=dict)
    reads: list[ReadSeen] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    loads_ended: bool = True
    stale_audits: list[ReadSeen] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr((self.writes, self.reads, self.faults)).encode()).hexdigest()

    def violations(self) -> list[Violation]:
        found = [violation for read in self.reads for violation in self._judge(read)]
        return found or [Violation("audit", next(iter(read.versions)), read, 0.0) for read in self.stale_audits]

    def audited(self, host: str, key: str, asof: int, at_s: float) -> None:
        """What a replica's audit found stale."""
        self.stale_audits.append(ReadSeen(host, BOUNDED, at_s, at_s, {key: 0}, tier=f"audit of asof {asof}"))

    def worst_s(self) -> float:
        """The longest time between a commit and a read, invoked later and not labelled, that missed it."""
        late = [
            read.invoked_s - after.committed_s
            for read in self.reads
            for key, version in read.versions.items()
            if not read.stale and (after := self._after(key, version)) is not None
        ]
        return max([0.0, *late])

    def _after(self, key: str, version: int) -> Write | None:
        writes = self.writes.get(key, [])
        return writes[version] if version < len(writes) else None  # versions count from 1

    def _judge(self, read: ReadSeen) -> list[Violation]:
        found: list[Violation] = []
        if read.error and (read.recovery or (self.loads_ended and read.level.kind == "bounded")):
            found.append(Violation("recovery" if read.recovery else "error", "", read, 0.0))
        for key, version in read.versions.items():
            writes = self.writes.get(key, [])
            if not 0 < version <= len(writes) or writes[version - 1].committed_s > read.returned_s:
                found.append(Violation("future", key, read, 0.0))
                continue
            after = self._after(key, version)
            late_s = read.invoked_s - after.committed_s if after is not None else 0.0
            if rule := self._broken_rule(read, after, late_s):
                found.append(Violation(rule, key, read, late_s))
        return found

    @staticmethod
    def _broken_rule(read: ReadSeen, after: Write | None, late_s: float) -> str:
        if read.recovery and (read.stale or after is not None):
            return "recovery"
        if after is None:
            return ""
        if read.level.kind == "linearizable" and late_s > 0:
            return "linearizable"
        if read.level.kind == "session" and after.seq <= read.level.seq:
            return "session"
        if late_s > DELTA_S and not read.stale:
            return "bounded"
        return "lag" if late_s > read.lag_s + _ROUNDING_S else ""
