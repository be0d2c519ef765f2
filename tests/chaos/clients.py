"""Clients that write and read over HTTP, what they saw, and whether it was right.

A skill is a register whose value is its active version, and each has one writer. A version counts
as written when its writer was told so; what a dying writer was not told, the database was asked.
All stamps are `CLOCK_BOOTTIME` of this process: a read's is taken before it is sent, a write's
after its answer has come, so the time on the wire can only make a late answer look less late.
"""

import asyncio
import random
import re
import sys
from dataclasses import dataclass, field

import httpx2

from services.changes.log import DELTA_S
from services.clock import monotonic_s
from tests.chaos.cluster import Cluster
from tests.support.packages import skill_md, zip_of

OWNER = "main"
# Longer than any time limit of the service, so that it is the service that refuses.
READ_TIMEOUT_S = 8.0
# A read that found a version no longer active: it saw a newer one, and which does not matter.
NEWER = sys.maxsize
# Of the versions before the newest so many are read too: they say whether they are still active.
_RECENT = 3
_FLOOR_SHARE = 0.3
_TIER = re.compile(r"tier=(\w+)")


@dataclass
class Seen:
    """A read: `due` is the version a session was told of, `tier` is empty when it failed.

    Of the skill's details, which no replica shares, or of one recent version, which goes through L2:
    `asked`: its number if it is said to be active, else `NEWER`.
    """

    name: str
    level: str
    invoked_s: float
    returned_s: float = 0.0
    version: int = 0
    tier: str = ""
    stale: bool = False
    asked: int = 0
    due: int = 0
    error: str = ""


@dataclass
class Phase:
    """What was seen under one fault. `floor_s` is what the replicas took for `/livez`, which does nothing."""

    written_s: dict[str, dict[int, float]]
    reads: list[Seen] = field(default_factory=list)
    floor_s: list[float] = field(default_factory=list)
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

    def p99_ms(self) -> float:
        return _p99([read.returned_s - read.invoked_s for read in self.reads if not read.error]) * 1000

    def floor_p99_ms(self) -> float:
        return _p99(self.floor_s) * 1000

    def row(self, fault: str) -> str:
        answered = [read for read in self.reads if not read.error]
        missed = sorted(self.missed_s(read) for read in answered if read.level == "bounded" and not read.stale)
        tiers = [sum(read.tier == tier for read in answered) for tier in ("l1", "l2", "l3")]
        levels = [len(self._answered(level)) for level in ("bounded", "session", "linearizable")]
        return (
            f"{fault:15s} {len(self.reads):6d} {self.writes:6d} {sum(each > 0 for each in missed):6d} "
            f"{max(missed, default=0) * 1000:6.0f} {len(self.beyond_bound()):6d} {len(self.forgotten_writes()):6d} "
            f"{len(self.stale_linearizable()):6d}  {'/'.join(map(str, levels)):16s} {'/'.join(map(str, tiers)):16s} "
            f"{sum(read.stale for read in answered):5d} {len(self.reads) - len(answered):6d} "
            f"{self.p99_ms():7.1f} {self.floor_p99_ms():7.1f}"
        )

    def _answered(self, level: str) -> list[Seen]:
        return [read for read in self.reads if read.level == level and not read.error]


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100] if values else 0.0


HEADER = (
    f"{'fault':15s} {'reads':>6s} {'writes':>6s} {'behind':>6s} {'ms':>6s} {'>bound':>6s} {'forgot':>6s} {'lin.':>6s}  "
    f"{'bounded/session/lin':16s} {'l1/l2/l3':16s} {'label':>5s} {'errors':>6s} {'p99 ms':>7s} {'livez':>7s}"
)


class Clients:
    """`names` are the skills, `newest` the versions of their last writes."""

    def __init__(self, cluster: Cluster, client: httpx2.AsyncClient, names: tuple[str, ...], levels: tuple[str, ...]):
        self._cluster = cluster
        self._client = client
        self._levels = levels
        self.names = names
        self._number = 0
        self.told: dict[str, tuple[int, int]] = {}  # name -> version, seq: of the last write that was answered
        self.phase = Phase({name: {} for name in names})

    @property
    def newest(self) -> dict[str, int]:
        return {name: max(self.phase.written_s[name], default=0) for name in self.names}

    def rewind(self, newest: dict[str, int]) -> None:
        """What was written after these versions has not been: the database says so."""
        for name, version in newest.items():
            written_s = self.phase.written_s[name]
            for undone in [each for each in written_s if each > version]:
                del written_s[undone]
            self.told.pop(name, None)
        self.phase.reads.clear()

    def begin(self) -> None:
        self.phase = Phase(self.phase.written_s)

    async def read_on(self, until_s: float, levels: tuple[str, ...] = ()) -> None:
        while monotonic_s() < until_s:
            await self._read(random.choice(self.names), random.choice(levels or self._levels))
            if random.random() < _FLOOR_SHARE:
                await self._measure_floor()
            await asyncio.sleep(random.uniform(0, 0.02))

    async def _measure_floor(self) -> None:
        sent_s = monotonic_s()
        try:
            await self._client.get(f"{random.choice(self._cluster.urls)}/livez", timeout=READ_TIMEOUT_S)
        except httpx2.HTTPError:
            return  # a replica that is down; its reads tell
        self.phase.floor_s.append(monotonic_s() - sent_s)

    async def write_on(self, name: str, until_s: float, pause_s: float = 0.15) -> None:
        while monotonic_s() < until_s:
            await self.write(name)
            if "session" in self._levels:
                await self._read(name, "session")  # at once, on whatever replica
            await asyncio.sleep(random.uniform(0, 2 * pause_s))

    async def read_everything(self) -> list[Seen]:
        """Details and recent versions of every skill, from every replica, under the bounded level."""
        wanted = [
            (name, url, back)
            for name, newest in self.newest.items()
            for url in self._cluster.urls
            for back in (None, *range(min(_RECENT, newest)))
        ]
        return [await self._read(name, "bounded", url, back) for name, url, back in wanted]

    async def status_of(self, what: str) -> int:
        """The status of a request that the database must answer: `a write`, `uncached` or `strict`."""
        url = f"{random.choice(self._cluster.urls)}/api/v1/skills"
        name = random.choice(self.names)
        if what == "a write":
            return (await self._post(name, url)).status_code
        path, level = (f"{name}/versions", "bounded") if what == "uncached" else (name, "linearizable")
        headers = {"x-consistency": level}
        return (await self._client.get(f"{url}/{OWNER}/{path}", headers=headers, timeout=READ_TIMEOUT_S)).status_code

    async def write(self, name: str, url: str | None = None) -> str:
        """The digest, empty when it was refused."""
        try:
            answer = await self._post(name, f"{url or random.choice(self._cluster.urls)}/api/v1/skills")
        except httpx2.HTTPError:
            self.phase.refused_writes += 1
            return ""
        if answer.status_code != 201:
            self.phase.refused_writes += 1
            return ""
        version = int(answer.json()["data"]["version"])
        self.phase.written_s[name].setdefault(version, monotonic_s())
        self.phase.writes += 1
        self.told[name] = (version, int(answer.headers["x-seq"]))
        return str(answer.json()["data"].get("digest", ""))

    async def _post(self, name: str, url: str) -> httpx2.Response:
        self._number += 1
        data = zip_of({"SKILL.md": skill_md(name, body=f"Write {self._number}.")})
        files = {"file": ("skill.zip", data, "application/zip")}
        return await self._client.post(url, files=files, timeout=READ_TIMEOUT_S)

    async def _read(self, name: str, level: str, url: str = "", back: int | None = -1) -> Seen:
        """`back` is how many versions before the newest; None for the details; by chance if not given."""
        due, seq = self.told.get(name, (0, 0)) if level == "session" else (0, 0)
        header = {"bounded": "bounded", "session": f"session={seq}", "linearizable": "linearizable"}[level]
        if back == -1:
            back = random.choice((None, None, None, *range(_RECENT)))
        wanted = max(1, self.newest[name] - back) if back is not None else None
        path = f"/api/v1/skills/{OWNER}/{name}" + (f"/versions/{wanted}" if wanted is not None else "")
        seen = Seen(name, level, monotonic_s(), asked=wanted or 0, due=due)
        try:
            answer = await self._client.get(
                (url or random.choice(self._cluster.urls)) + path,
                headers={"x-consistency": header},
                timeout=READ_TIMEOUT_S,
            )
            if answer.status_code == 200:
                data = answer.json()["data"]
                seen.version = int(data["version"]) if wanted is None or data["active"] else NEWER
                status = answer.headers["cache-status"]
                found = _TIER.search(status)
                seen.tier, seen.stale = found[1] if found else "", " stale" in status
            else:
                seen.error = f"{answer.status_code} {answer.text[:200]}"
        except httpx2.HTTPError as error:
            seen.error = repr(error)
        seen.returned_s = monotonic_s()
        self.phase.reads.append(seen)
        return seen
