"""Clients that write and read over HTTP, what they saw, and whether it was right.

A skill is a register whose value is its active version, and each has one writer. A version counts
as written when its writer was told so; what a dying writer was not told, the database was asked.
All stamps are `CLOCK_BOOTTIME` of this process: a read's is taken before it is sent, a write's
after its answer has come, so the time on the wire can only make a late answer look less late.
"""

import asyncio
import random
import re
from dataclasses import dataclass, field

import httpx2

from services.changes.log import DELTA_S
from services.clock import monotonic_s
from tests.chaos.cluster import Cluster
from tests.support.packages import skill_md, zip_of

OWNER = "main"
READ_TIMEOUT_S = 5.0
_TIER = re.compile(r"tier=(\w+)")


@dataclass
class Seen:
    """A read: `due` is the version a session was told of, `tier` is empty when it failed."""

    name: str
    level: str
    invoked_s: float
    returned_s: float = 0.0
    version: int = 0
    tier: str = ""
    stale: bool = False
    due: int = 0
    error: str = ""


@dataclass
class Phase:
    """What was seen under one fault."""

    written_s: dict[str, dict[int, float]]
    reads: list[Seen] = field(default_factory=list)
    writes: int = 0
    refused_writes: int = 0

    def missed_s(self, read: Seen) -> float:
        """How long before the read the first version that it missed had been written; 0 when it missed none."""
        newer = [at_s for version, at_s in self.written_s[read.name].items() if version > read.version]
        return max(0.0, read.invoked_s - min(newer, default=read.invoked_s))

    def beyond_bound(self) -> list[Seen]:
        return [read for read in self._answered("bounded") if not read.stale and self.missed_s(read) > DELTA_S]

    def stale_linearizable(self) -> list[Seen]:
        return [read for read in self._answered("linearizable") if self.missed_s(read) > 0]

    def forgotten_writes(self) -> list[Seen]:
        return [read for read in self._answered("session") if read.version < read.due]

    def row(self, fault: str) -> str:
        answered = [read for read in self.reads if not read.error]
        missed = sorted(self.missed_s(read) for read in answered if read.level == "bounded" and not read.stale)
        took_ms = sorted((read.returned_s - read.invoked_s) * 1000 for read in answered) or [0.0]
        tiers = [sum(read.tier == tier for read in answered) for tier in ("l1", "l2", "l3")]
        levels = [len(self._answered(level)) for level in ("bounded", "session", "linearizable")]
        return (
            f"{fault:15s} {len(self.reads):6d} {self.writes:6d} {sum(each > 0 for each in missed):6d} "
            f"{max(missed, default=0) * 1000:6.0f} {len(self.beyond_bound()):6d} {len(self.forgotten_writes()):6d} "
            f"{len(self.stale_linearizable()):6d}  {'/'.join(map(str, levels)):16s} {'/'.join(map(str, tiers)):16s} "
            f"{sum(read.stale for read in answered):5d} {len(self.reads) - len(answered):6d} "
            f"{took_ms[len(took_ms) * 99 // 100]:7.1f}"
        )

    def _answered(self, level: str) -> list[Seen]:
        return [read for read in self.reads if read.level == level and not read.error]


HEADER = (
    f"{'fault':15s} {'reads':>6s} {'writes':>6s} {'behind':>6s} {'ms':>6s} {'>bound':>6s} {'forgot':>6s} {'lin.':>6s}  "
    f"{'bounded/session/lin':16s} {'l1/l2/l3':16s} {'label':>5s} {'errors':>6s} {'p99 ms':>7s}"
)


class Clients:
    def __init__(self, cluster: Cluster, client: httpx2.AsyncClient, names: tuple[str, ...], levels: tuple[str, ...]):
        self._cluster = cluster
        self._client = client
        self._levels = levels
        self._names = names
        self._number = 0
        self.told: dict[str, tuple[int, int]] = {}  # name -> version, seq: of the last write that was answered
        self.phase = Phase({name: {} for name in names})

    def begin(self) -> None:
        self.phase = Phase(self.phase.written_s)

    async def read_on(self, until_s: float) -> None:
        while monotonic_s() < until_s:
            await self._read(random.choice(self._names), random.choice(self._levels))
            await asyncio.sleep(random.uniform(0, 0.02))

    async def write_on(self, name: str, until_s: float, pause_s: float = 0.15) -> None:
        while monotonic_s() < until_s:
            await self.write(name)
            if "session" in self._levels:
                await self._read(name, "session")  # at once, on whatever replica
            await asyncio.sleep(random.uniform(0, 2 * pause_s))

    async def write(self, name: str, url: str | None = None) -> None:
        self._number += 1
        data = zip_of({"SKILL.md": skill_md(name, body=f"Write {self._number}.")})
        try:
            answer = await self._client.post(
                f"{url or random.choice(self._cluster.urls)}/api/v1/skills",
                files={"file": ("skill.zip", data, "application/zip")},
                timeout=READ_TIMEOUT_S,
            )
        except httpx2.HTTPError:
            self.phase.refused_writes += 1
            return
        if answer.status_code != 201:
            self.phase.refused_writes += 1
            return
        version = int(answer.json()["data"]["version"])
        self.phase.written_s[name].setdefault(version, monotonic_s())
        self.phase.writes += 1
        self.told[name] = (version, int(answer.headers["x-seq"]))

    async def _read(self, name: str, level: str) -> None:
        due, seq = self.told.get(name, (0, 0)) if level == "session" else (0, 0)
        header = {"bounded": "bounded", "session": f"session={seq}", "linearizable": "linearizable"}[level]
        url = f"{random.choice(self._cluster.urls)}/api/v1/skills/{OWNER}/{name}"
        seen = Seen(name, level, monotonic_s(), due=due)
        try:
            answer = await self._client.get(url, headers={"x-consistency": header}, timeout=READ_TIMEOUT_S)
            if answer.status_code == 200:
                seen.version = int(answer.json()["data"]["version"])
                status = answer.headers["cache-status"]
                found = _TIER.search(status)
                seen.tier, seen.stale = found[1] if found else "", " stale" in status
            else:
                seen.error = f"{answer.status_code} {answer.text[:200]}"
        except httpx2.HTTPError as error:
            seen.error = repr(error)
        seen.returned_s = monotonic_s()
        self.phase.reads.append(seen)
