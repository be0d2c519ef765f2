"""Failed calls become incidents; callers are told what helped before.

What the firewall knows of other replicas' doings comes from the change log: solutions and levels
are changes, and a row of theirs makes every replica read again what is marked and what is solved.

Nothing here changes how a call fails. Looking for solutions is bounded by `LOOKUP_S`, and its own
trouble is logged and counted. The one call that fails because of the firewall is one that equals a
call a person has marked `block`: same tool, same arguments but for uuids and stamps. Likeness of
messages never blocks anything.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog

from services import metrics
from services.caller import Sees
from services.clock import utc_now
from services.errors.nouns import Incident, IncidentQuery, KnownSolution, Level, Solution
from services.errors.occurrences import OccurrenceLog
from services.errors.patterns import class_of, fingerprint, masked, pattern_of, without_secrets
from services.errors.similar import SimilarPatterns
from services.errors.solutions import ranked
from services.failures import Forbidden, NotFound, ServiceError, Unavailable
from services.models import Change, Skill
from services.ports import CatalogSnapshot, IncidentStore
from services.skills.tools import CallableTool
from services.storage.invocations import redacted

LOOKUP_S = 0.05
TOLD_MAX = 3
SAMPLE_BYTES_MAX = 512
_SOLVED_MAX = 10_000
_STATES_AT_START = 100
_RETRY_S = 5.0
# The service's own load and end, and its refusals because of an incident: no tool's failure.
_NOT_COUNTED = frozenset({"closing", "queue_full", "queue_timeout", "blocked_by_incident"})

log = structlog.get_logger(__name__)


class Reason(msgspec.Struct, frozen=True):
    """Why a call would be warned of or refused."""

    incident: str
    pattern: str
    level: Level
    solutions: list[KnownSolution]


class ErrorFirewall:
    """A `ChangeSink`. Start it with `start`, end it with `close`, after the last call has ended."""

    def __init__(
        self,
        store: IncidentStore,
        similar: SimilarPatterns,
        find_skill: Callable[[str], Skill | None],
        announce: Callable[[Incident, Skill], None],
    ) -> None:
        self._store = store
        self._similar = similar
        self._find_skill = find_skill
        self._announce = announce
        self._occurrences = OccurrenceLog(store, self._tell)
        self._marked: dict[str, dict[str, list[Incident]]] = {}  # by tool, by guard
        self._solved: dict[str, Incident] = {}
        self._reading = asyncio.Lock()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads what is known. Raises `Unavailable`: without it blocked calls would go through."""
        await self._read()
        self._tell((await self._store.incidents(IncidentQuery(_STATES_AT_START)))[::-1])
        self._occurrences.start()
        self._news.set()
        self._task = asyncio.create_task(self._follow(), name="error firewall")

    async def close(self) -> None:
        """Returns when every occurrence is written; the caller bounds the wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._similar.close()
        await self._occurrences.close()

    def apply(self, changes: Sequence[Change]) -> None:
        if any(change.topic == "solutions" for change in changes):
            self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:  # noqa: ARG002  # the port's shape
        self._news.set()

    @asynccontextmanager
    async def guarding(self, tool: CallableTool, arguments: dict[str, Any], sees: Sees) -> AsyncIterator[None]:
        """Around one call. Raises `Forbidden` (`blocked_by_incident`) instead of running it; a failure
        of the call goes on as it is, with `incident` and `known_solutions` among its facts."""
        encoded = _encoded(arguments)  # now: whoever runs the call may change the object
        await self._refuse_blocked(tool, encoded, sees)
        try:
            yield
        except ServiceError as error:
            if error.code not in _NOT_COUNTED:
                incident = _occurrence(tool, error, encoded)
                self._occurrences.add(incident)
                told = await self._lookup(incident, sees)
                error.facts = {**error.facts, "incident": incident.id, "known_solutions": told}
            raise

    async def check(self, tool: CallableTool, arguments: dict[str, Any], sees: Sees) -> list[Reason]:
        """What people have marked about this very call; empty for one that nobody has."""
        marked = self._marks(tool, _encoded(arguments))
        return [Reason(each.id, each.pattern, each.level, await self._lookup(each, sees)) for each in marked]

    async def incident(self, incident_id: str, sees: Sees) -> tuple[Incident, Skill]:
        """With what was counted a moment ago. Raises `NotFound`, also for what this caller may not see."""
        await self._occurrences.flush()
        incident = await self._store.incident(incident_id)
        skill = self._find_skill(incident.skill)
        if skill is None or not sees(skill):
            raise NotFound(f"there is no incident {incident_id}", incident=incident_id)
        return incident, skill

    async def page(self, query: IncidentQuery, sees: Sees) -> tuple[list[Incident], tuple[str, str] | None]:
        """What the caller sees of one page, and where the next one goes on."""
        await self._occurrences.flush()
        found = await self._store.incidents(query)
        after = (found[-1].last_at, found[-1].id) if len(found) == query.limit else None
        shown = [each for each in found if (skill := self._find_skill(each.skill)) is not None and sees(skill)]
        return shown, after

    async def solutions(self, incident_id: str) -> list[Solution]:
        """Best first."""
        return ranked(await self._store.solutions([incident_id]))

    async def add_solution(self, incident_id: str, text: str, author: str, sees: Sees) -> tuple[Solution, int]:
        """Answers with the seq of its change. Raises `NotFound`, or `Conflict` for one too many."""
        incident, skill = await self.incident(incident_id, sees)
        # Sorts by time: newest last.
        solution_id = f"sol-{time.time_ns():016x}-{secrets.token_hex(4)}"
        solution = Solution(solution_id, incident.id, text, author, utc_now())
        seq = await self._store.add_solution(solution, skill.owner, skill.visibility)
        try:
            await self._read()
        except Unavailable:
            self._news.set()  # it is committed: an error would make the caller add it again
        return solution, seq

    async def report_outcome(self, incident_id: str, solution_id: str, worked: bool, sees: Sees) -> Solution:
        """Counts one try. Raises `NotFound`."""
        incident, _ = await self.incident(incident_id, sees)
        return await self._store.count_outcome(incident.id, solution_id, worked)

    async def mark(self, incident_id: str, level: Level, by: str, sees: Sees) -> tuple[Incident, int]:
        """Sets the level; it holds here when this returns. Answers with the seq of the change."""
        _, skill = await self.incident(incident_id, sees)
        incident, seq = await self._store.mark(incident_id, level, by, skill.owner, skill.visibility)
        await self._read()
        self._tell([incident])
        return incident, seq

    def _marks(self, tool: CallableTool, encoded: bytes) -> list[Incident]:
        by_guard = self._marked.get(tool.name)
        return by_guard.get(_guard(encoded), []) if by_guard else []

    async def _refuse_blocked(self, tool: CallableTool, encoded: bytes, sees: Sees) -> None:
        blocking = next((each for each in self._marks(tool, encoded) if each.level == "block"), None)
        if blocking is None:
            return
        metrics.calls_blocked.inc()
        raise Forbidden(
            f"this call is blocked, because it failed before: {blocking.pattern}",
            code="blocked_by_incident",
            incident=blocking.id,
            known_solutions=await self._lookup(blocking, sees),
        )

    async def _lookup(self, incident: Incident, sees: Sees) -> list[KnownSolution]:
        """At most `TOLD_MAX`; none when they cannot be found in time."""
        outcome = "failed"
        try:
            async with asyncio.timeout(LOOKUP_S):
                told = await self._known_solutions(incident, sees)
            outcome = told[0].match if told else "none"
        except TimeoutError:
            outcome = "late"
            log.warning("solutions were not found in time", incident=incident.id)
        except Exception:
            # Whatever it is: the caller must get the failure of its call and not this one.
            metrics.firewall_failures.inc()
            log.exception("solutions cannot be looked up", incident=incident.id)
        else:
            return told
        finally:
            metrics.solution_lookups.labels(outcome).inc()
        return []

    async def _known_solutions(self, incident: Incident, sees: Sees) -> list[KnownSolution]:
        scores = {incident.id: 1.0} if incident.id in self._solved else {}
        for id_, score in await self._similar.like(incident.pattern, 2 * TOLD_MAX):
            other = self._solved.get(id_)
            skill = self._find_skill(other.skill) if other is not None else None
            if skill is not None and sees(skill):
                scores.setdefault(id_, score)
        if not scores:
            return []
        found: dict[str, list[Solution]] = {}
        for solution in await self._store.solutions(list(scores)):
            found.setdefault(solution.incident, []).append(solution)
        told = []
        for id_, score in scores.items():
            exact = id_ == incident.id
            # Of a similar incident only the best: the others were tried against something else.
            for each in ranked(found.get(id_, []))[: TOLD_MAX if exact else 1]:
                match: Any = "exact" if exact else "similar"
                told.append(KnownSolution(id_, each.id, each.text, match, score, each.tried, each.worked))
        return told[:TOLD_MAX]

    async def _read(self) -> None:
        """One at a time, so that what was read earlier never replaces what was read later."""
        async with self._reading:
            known = await self._store.known(_SOLVED_MAX)
            marked: dict[str, dict[str, list[Incident]]] = {}
            for incident in known.marked:
                marked.setdefault(incident.tool, {}).setdefault(incident.guard, []).append(incident)
            self._marked = marked
            self._solved = {incident.id: incident for incident in known.solved}
            await self._similar.replace({incident.id: incident.pattern for incident in known.solved})

    async def _follow(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._read()
                await self._similar.embed()
            except Exception:
                metrics.firewall_failures.inc()
                log.exception("the error firewall is behind; trying again", retry_in_s=_RETRY_S)
                self._news.set()
                await asyncio.sleep(_RETRY_S)

    def _tell(self, incidents: Sequence[Incident]) -> None:
        for incident in incidents:
            skill = self._find_skill(incident.skill)
            if skill is not None:
                self._announce(incident, skill)


def _occurrence(tool: CallableTool, error: ServiceError, encoded: bytes) -> Incident:
    pattern = pattern_of(error.message)
    error_class = class_of(error.code, pattern)
    now = utc_now()
    return Incident(
        id=fingerprint(error_class, tool.name, pattern),
        error_class=error_class,
        tool=tool.name,
        skill=tool.skill.id,
        pattern=pattern,
        code=error.code,
        level="none",
        count=1,
        first_at=now,
        last_at=now,
        message=_cut(without_secrets(error.message)),
        arguments=_cut(redacted(msgspec.json.decode(encoded)) if encoded else "[not shown]"),
        guard=_guard(encoded),
    )


def _encoded(arguments: dict[str, Any]) -> bytes:
    """The same bytes for equal arguments; none for what cannot be written as JSON, which cannot run either."""
    try:
        return msgspec.json.encode(arguments, order="deterministic")
    except (ValueError, TypeError, RecursionError):
        return b""


def _guard(encoded: bytes) -> str:
    """The same for arguments that differ in uuids and stamps alone."""
    return hashlib.sha256(masked(encoded)).hexdigest()


def _cut(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= SAMPLE_BYTES_MAX:
        return encoded.decode()
    return encoded[: SAMPLE_BYTES_MAX - 3].decode(errors="ignore") + "..."
