"""The real code with one thing wrong, to prove that the simulator would have seen it.

A mutant is a fresh copy of the modules under test in which `before`, found exactly once, reads
`after`; the imported modules are not touched. When the code changes and `before` is not there any
more, making the mutant fails: say anew what the mistake would be.
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from services.cache import audit, codec, flight, hits, horizon, memory, refill, tiered
from services.changes import log
from tests.sim.replica import Parts

_MODULES = {module.__name__: module for module in (audit, codec, flight, hits, horizon, memory, log, refill, tiered)}


class Mutant(NamedTuple):
    """`seeds_max` bounds how many seeds may pass before one catches it."""

    name: str
    module: str
    before: str
    after: str
    seeds_max: int = 60

    def parts(self) -> Parts:
        copies = {name: self._copy(name) for name in _MODULES}
        copies[tiered.__name__]["Flights"] = copies[flight.__name__]["Flights"]
        copies[tiered.__name__]["Hits"] = copies[hits.__name__]["Hits"]
        copies[tiered.__name__]["Refill"] = copies[refill.__name__]["Refill"]
        return Parts(
            copies[log.__name__]["ChangeFeed"],
            copies[horizon.__name__]["Horizon"],
            copies[memory.__name__]["MemoryTier"],
            copies[tiered.__name__]["TieredCache"],
            copies[codec.__name__]["Codec"],
            copies[audit.__name__]["Audits"],
        )

    def _copy(self, name: str) -> dict[str, Any]:
        path = Path(_MODULES[name].__file__ or "")
        source = path.read_text()
        if name == self.module:
            if source.count(self.before) != 1:
                raise LookupError(f"mutant {self.name!r}: {path.name} does not hold once: {self.before!r}")
            source = source.replace(self.before, self.after)
        spec = importlib.util.spec_from_loader(name, loader=None)
        assert spec is not None
        copy = importlib.util.module_from_spec(spec)
        copy.__file__ = str(path)  # from where it reads what lies beside it
        exec(compile(source, f"{path.name} ({self.name})", "exec"), copy.__dict__)
        return copy.__dict__


_TIERED, _REFILL, _LOG, _HORIZON = tiered.__name__, refill.__name__, log.__name__, horizon.__name__
_CODEC, _HITS = codec.__name__, hits.__name__

MUTANTS = (
    Mutant(
        "asof read after the load",
        _REFILL,
        "took_s = self._memory.clock() - started_s",
        "took_s = self._memory.clock() - started_s; capture.asof = self._feed.applied",
    ),
    Mutant(
        "validity not checked at a hit",
        _HITS,
        "if not self._horizon.allows(cell.record):",
        "if False:",
    ),
    Mutant("a hit not checked past the horizon", _HITS, "now_s < cell.good_until_s", "now_s < cell.until_s"),
    Mutant("L2 trusted", _REFILL, "elif self._horizon.allows(found.record):", "elif True:"),
    Mutant(
        "the seal not looked at",
        _CODEC,
        "if not hmac.compare_digest(self._seal(name, prefix, body), data[_PREFIX.size : _HEAD_BYTES]):",
        "if False:",
    ),
    Mutant(
        "the seal without the prefix, where asof is",
        _CODEC,
        'len(named).to_bytes(4, "big") + named + prefix)',
        'len(named).to_bytes(4, "big") + named)',
    ),
    Mutant(
        "deps of the L2 record believed",
        _REFILL,
        "if found is None or not set(deps) <= set(found.record.deps):",
        "if found is None:",
    ),
    Mutant(
        "joined load not judged again",
        _TIERED,
        "if is_of_now and (landed.record.asof >= bound.asof or self._horizon.allows(landed.record)):",
        "if True:",
        seeds_max=400,
    ),
    Mutant(
        "horizon counted from the answer",
        _LOG,
        "self.horizon_s = max(self.horizon_s, sent_s + DELTA_S)\n                return",
        "self.horizon_s = max(self.horizon_s, self._clock() + DELTA_S)\n                return",
    ),
    Mutant(
        "horizon never checked",
        _LOG,
        "stale = not self.is_fresh\n        if stale and",
        "stale = False\n        if stale and",
    ),
    Mutant(
        "a tail that did not come makes fresh",
        _LOG,
        "has just ended.\n                stale = not self.is_fresh",
        "has just ended.\n                stale = False",
    ),
    Mutant(
        "a hint taken for a change",
        _LOG,
        "if seq > self.applied:\n            self.kick()",
        "self.position = self.position._replace(seq=max(seq, self.applied)); self.kick()",
    ),
    Mutant(
        "a hint taken for a tail",
        _LOG,
        "self._news.set()",
        "self._news.set(); self.horizon_s = self._clock() + DELTA_S",
    ),
    Mutant(
        "read index shared with whoever comes after the query",
        _LOG,
        "self._round = None  # whoever comes from here on comes after the query\n            await self._catch_up()",
        "await self._catch_up(); self._round = None",
        seeds_max=400,
    ),
    Mutant("session answered without its seq", _LOG, "if self.applied >= seq:\n            return True", "return True"),
    Mutant(
        "session answered past the horizon",
        _LOG,
        'if level.kind == "linearizable" or not self.is_fresh:',
        'if level.kind == "linearizable":',
    ),
    Mutant(
        "an audit that does not wait for the bound",
        audit.__name__,
        "await asyncio.sleep(DELTA_S + _MARGIN_S)",
        "pass",
    ),
    Mutant(
        "an audit that does not ask the cache again",
        audit.__name__,
        'return "stale" if self._serves(key, cell, record) else "ok"',
        'return "stale"',
    ),
    Mutant(
        "a moved horizon taken for an unchanged log",
        _HITS,
        "and cell.revision == self._horizon.settled",
        "and True",
    ),
    Mutant("floor ignored", _HORIZON, "if record.deps and record.asof < self._floor:", "if False:"),
    Mutant("epoch ignored", _HORIZON, "if record.epoch != self._epoch:", "if False:"),
    Mutant("newest change of a dep not kept", _HORIZON, "max(last.get(dep, 0), change.seq)", "0"),
    Mutant(
        "a changed log not looked at again",
        _HORIZON,
        "self._note(change)\n        self._move()",
        "self._note(change)",
    ),
)
