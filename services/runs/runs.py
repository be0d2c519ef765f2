"""Calls that outlive their request: each is a run in the database, worked on by one replica at a time.

when                              then
a call is over within `GRACE_S`   it is answered as any other; there is no run
it asks its client                no worker is held; whichever replica gets the last answer goes on
it is cancelled, on any replica   the log tells the one that works, and that ends the worker
that replica closes               the run fails as interrupted: the tool's effects are not known
that replica dies                 another sees its lease run out and writes the same
the database does not answer      the outcome is written again and again, for `RECORD_S`
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol, Self

import msgspec
import structlog

from services import metrics
from services.caller import Caller
from services.changes.log import ChangeFeed
from services.clock import Monotonic, monotonic_s, rfc3339, utc_now, utc_time
from services.execution.calls import CallAnswer, ToolCalls
from services.execution.dialogue import Dialogue
from services.failures import NotFound, ServiceError, TooLarge, Unavailable
from services.models import Change
from services.ports import CatalogSnapshot, RunStore
from services.runs import rules
from services.runs.nouns import Run, RunError, RunQuery
from services.skills.catalog import Catalog
from services.skills.tools import CallableTool, callable_name

# A call that takes longer becomes a run, if its client can ask for that later.
GRACE_S = 0.5
SWEEP_S = 15.0
RECORD_S = 60.0
_RECORD_PAUSE_MAX_S = 2.0
_INTERNAL = RunError("internal", "something went wrong here; the log of the service names it")

log = structlog.get_logger(__name__)


class Asks(Protocol):
    """What in a tool's result is to be asked of a client with these capabilities; None for a final
    result. Raises `ServiceError`, with the code `missing_capability` for what cannot be asked."""

    def __call__(self, result: Any, capabilities: dict[str, Any]) -> dict[str, Any] | None: ...


class _Going(NamedTuple):
    """A call under way here, and the task that writes what becomes of it."""

    calling: "asyncio.Task[CallAnswer]"
    settling: "asyncio.Task[None]"


class Runs:
    """A `ChangeSink`, and the owner of all calls that outlive their requests on this replica.

    `is_alive` tells whether a replica is; a run is kept for `keep_s` from its beginning.
    """

    def __init__(
        self,
        store: RunStore,
        calls: ToolCalls,
        catalog: Catalog,
        feed: ChangeFeed,
        asks: Asks,
        is_alive: Callable[[str], Awaitable[bool]],
        *,
        replica: str,
        keep_s: float,
        sweep_s: float = SWEEP_S,
        clock: Monotonic = monotonic_s,
    ) -> None:
        self._store = store
        self._calls = calls
        self._catalog = catalog
        self._feed = feed
        self._asks = asks
        self._is_alive = is_alive
        self._replica = replica
        self.keep_s = keep_s
        self._sweep_s = sweep_s
        self._clock = clock
        self._going: dict[str, _Going] = {}
        self._gone: set[str] = set()
        self._closing = False
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="runs")
        return self

    async def close(self) -> None:
        """Ends the calls under way; their runs say so."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait([self._sweeper])
        going = list(self._going.values())
        for each in going:
            each.calling.cancel()
        if going:
            settling = [each.settling for each in going]
            try:
                await asyncio.wait(settling)
            finally:  # the caller's patience is over
                for task in settling:
                    task.cancel()

    async def call(
        self, tool: CallableTool, arguments: dict[str, Any], caller: Caller, dialogue: Dialogue, client: dict[str, Any]
    ) -> CallAnswer | Run:
        """The answer, or the run that goes on without the caller; `client` are its capabilities. Raises as
        `ToolCalls.run`. A caller that leaves before there is a run takes the call with it."""
        calling = asyncio.create_task(self._calls.run(tool, arguments, caller, dialogue), name="run")
        try:
            done, _ = await asyncio.wait([calling], timeout=GRACE_S)
            if done:
                return calling.result()
            now = utc_time()
            run = await self._store.create(
                Run(
                    id=f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(16)}",
                    principal=caller.id,
                    status="working",
                    tool=tool.name,
                    is_interactive=tool.spec.interactive,
                    skill=tool.skill.id,
                    version=tool.version.version,
                    digest=tool.version.digest,
                    replica=self._replica,
                    created_at=rfc3339(now),
                    changed_at=rfc3339(now),
                    expires_at=rfc3339(now + timedelta(seconds=self.keep_s)),
                    arguments=arguments,
                    capabilities=client,
                )
            )
        except BaseException:
            calling.cancel()
            await asyncio.wait([calling])
            raise
        dialogue.leave()
        self._attend(run, calling)
        self._feed.committed(run.seq)
        metrics.runs.labels("begun").inc()
        return run

    async def get(self, run_id: str, principal: str) -> Run:
        """Raises `NotFound`, also for another principal's and for one that has expired."""
        run = await self._store.run(run_id)
        if run.principal != principal or run.expires_at <= utc_now():
            raise NotFound("there is no such run", run=run_id)
        return run

    async def state(self, run_id: str) -> Run:
        """Whoever's it is: for those who were shown to be allowed to see it. Raises `NotFound`."""
        return await self._store.run(run_id)

    async def list(self, query: RunQuery) -> list[Run]:
        return await self._store.runs(query)

    async def cancel(self, run_id: str, principal: str) -> Run:
        """One that is over stays as it is. Raises `NotFound`."""
        await self.get(run_id, principal)
        run = await self._store.change(run_id, rules.cancelled)
        self._feed.committed(run.seq)
        return run

    async def answer(self, run_id: str, responses: dict[str, Any], caller: Caller, client: dict[str, Any]) -> Run:
        """Responses to questions that are not open are passed over. With the last one that is, the call
        goes on here. Raises `NotFound`."""
        await self.get(run_id, caller.id)
        goes_on = False

        def rule(run: Run) -> Run | None:
            nonlocal goes_on
            after = rules.answered(run, responses, self._replica)
            goes_on = after is not None and after.status == "working"
            return msgspec.structs.replace(after, capabilities=client) if after is not None and goes_on else after

        run = await self._store.change(run_id, rule)
        if goes_on:
            self._attend(run, asyncio.create_task(self._next_round(run, caller), name="run"))
        self._feed.committed(run.seq)
        return run

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind == "run.cancelled":
                going = self._going.get(msgspec.json.decode(change.data)["id"])
                if going is not None:
                    going.calling.cancel()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        """Nothing: a cancellation that was missed is found when the outcome is written."""

    async def sweep(self) -> None:
        """Fails the runs of replicas that are gone, and were already at the look before."""
        gone: set[str] = set()
        for run in await self._store.working():
            if run.id in self._going:
                continue
            if run.replica in gone or not await self._works(run):
                gone.add(run.replica)
                if run.replica in self._gone:
                    changed = await self._store.change(run.id, partial(rules.interrupted, replica=run.replica))
                    self._feed.committed(changed.seq)
        self._gone = gone

    async def _works(self, run: Run) -> bool:
        """Whether anybody may be working on it. One of ours that we know nothing of is left over from a
        write whose answer was lost."""
        return run.replica != self._replica and await self._is_alive(run.replica)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._sweep_s)
            try:
                await self.sweep()
            except Exception:
                metrics.run_failures.inc()
                log.exception("runs of replicas that are gone could not be looked for; trying again")

    def _attend(self, run: Run, calling: "asyncio.Task[CallAnswer]") -> None:
        settling = asyncio.create_task(self._settle(run, calling), name="settle a run")
        self._going[run.id] = _Going(calling, settling)

    async def _next_round(self, run: Run, caller: Caller) -> CallAnswer:
        """With the version that the run began with, whatever is active by now."""
        skill, version = await self._catalog.version(run.skill, run.version, caller.sees)
        spec = next(spec for spec in version.tools if callable_name(skill, spec) == run.tool)
        dialogue = Dialogue(run.capabilities, rules.given_to_tool(run), run.state)
        dialogue.leave()
        return await self._calls.run(CallableTool(run.tool, skill, version, spec), run.arguments, caller, dialogue)

    async def _settle(self, run: Run, calling: "asyncio.Task[CallAnswer]") -> None:
        try:
            await asyncio.wait([calling])
            rule = self._outcome(run, calling)
            if rule is not None:
                await self._record(run, rule)
        except Exception:
            metrics.run_failures.inc()
            log.exception("what became of a run could not be written", run=run.id)
        finally:
            calling.cancel()
            del self._going[run.id]

    def _outcome(self, run: Run, calling: "asyncio.Task[CallAnswer]") -> Callable[[Run], Run | None] | None:
        """None when it was cancelled, which is written already."""
        if calling.cancelled():
            return partial(rules.interrupted, replica=self._replica) if self._closing else None
        try:
            result = calling.result().result
            questions = self._asks(result, run.capabilities)
        except Unavailable as error:
            return partial(rules.failed, error=rules.error_of(error))
        except ServiceError as error:
            make = rules.failed if error.code == rules.MISSING_CAPABILITY else rules.tool_failed
            return partial(make, error=rules.error_of(error))
        except Exception:
            metrics.run_failures.inc()
            log.exception("a run failed unexpectedly", run=run.id)
            return partial(rules.failed, error=_INTERNAL)
        if questions is None:
            return partial(rules.completed, result=result)
        return partial(rules.asked, questions=questions, state=str(result.get("requestState") or ""))

    async def _record(self, run: Run, rule: Callable[[Run], Run | None]) -> None:
        until_s = self._clock() + RECORD_S
        while True:
            try:
                changed = await self._store.change(run.id, rule)
            except NotFound:
                return  # it has expired
            except TooLarge as error:
                rule = partial(rules.tool_failed, error=rules.error_of(error))
            except Unavailable:
                if self._clock() > until_s:
                    raise
                await asyncio.sleep(random.uniform(0, _RECORD_PAUSE_MAX_S))
            else:
                self._feed.committed(changed.seq)
                metrics.runs.labels(changed.status).inc()
                return
