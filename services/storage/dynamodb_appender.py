"""The one task of a replica that appends to the change log on DynamoDB.

Idea: all writes of all replicas meet at one item, the log's end, which a transaction may move only
from where its plan assumes it. Each lost race costs a read and a plan, so a replica sends one
transaction at a time and puts into it whatever waits. Each write of such a batch is planned on top
of those before it; one that is refused (a stale `if_match`) leaves no trace in the plan.

| when                                | then                                                             |
|-------------------------------------|------------------------------------------------------------------|
| another replica commits first       | the batch is read for and planned again, at most `TRIES_MAX` times |
| a write does not fit into the batch | it is in the next one; alone too large: `TooLarge`               |
| the answer to a commit is lost      | sent again; rows carry a token that tells whose they are         |
| DynamoDB does not answer            | all writes of the batch are `Unavailable`; they may be there     |
| the caller goes                     | its write is left out, or committed if it was sent already       |
| this process is killed              | the transaction is carried out as a whole, or was never sent     |
"""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from services import metrics
from services.failures import NotFound, ServiceError, TooLarge, Unavailable
from services.models import Skill
from services.storage.aws import Refusal
from services.storage.dynamodb_items import size_of, to_item
from services.storage.dynamodb_plan import transaction
from services.storage.dynamodb_reads import Head, Reads, Torn
from services.storage.dynamodb_tables import HEAD_KEY
from services.storage.plan import NAMESPACE, WritePlan

# Of one write in the line, which may be long when others write as well.
WRITE_TIMEOUT_S = 10.0
TRIES_MAX = 50
QUEUE_MAX = 1000
# Writes in one transaction, and what DynamoDB takes in one: 100 items, 4 MB.
WRITES_MAX = 25
_ITEMS_MAX = 100
_BYTES_MAX = 3_500_000
_SENT_MAX = 3
# The first wait after a lost race, at most; it doubles with each up to `_PAUSE_MAX_S`.
_PAUSE_S, _PAUSE_MAX_S = 0.005, 0.2
_THROTTLED = {"ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}

Answer = TypeVar("Answer")
Skills = dict[str, Skill]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Write(Generic[Answer]):
    """What is asked for: `rule` adds it to a plan that knows these skills and the streams of these
    owners, or raises and is then as if it had never been called. It may be called several times."""

    owners: frozenset[str]
    skill_ids: frozenset[str]
    rule: Callable[[WritePlan, Skills], Awaitable[Answer]]
    also: list[dict[str, Any]] = field(default_factory=list)
    """Further items of its transaction, which `rule` sets anew each time."""
    alone: bool = False
    """Shares its transaction with no other write, which might touch the same items."""


@dataclass(frozen=True)
class _Waiting:
    write: Write[Any]
    answer: "asyncio.Future[Any]"


class Appender:
    """Start it with `start`, end it with `close`, which lets what was sent come to its end."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._line: deque[_Waiting] = deque()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="appender")

    async def close(self) -> None:
        self._closing = True
        self._news.set()
        if self._task is not None:
            try:
                await asyncio.wait([self._task])
            finally:
                self._task.cancel()

    async def commit(self, write: Write[Answer]) -> Answer:
        """The rule's answer once its rows are committed; its error, and then nothing was written."""
        if self._closing:
            raise Unavailable("the store is being closed")
        if len(self._line) >= QUEUE_MAX:
            metrics.appends_refused.inc()
            raise Unavailable("too many writes wait for the change log; try again")
        waiting = _Waiting(write, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self._news.set()
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                answer: Answer = await waiting.answer
        except TimeoutError as error:
            raise Unavailable("DynamoDB does not answer in time") from error
        return answer

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._line:
                batch = [self._line.popleft() for _ in range(min(WRITES_MAX, len(self._line)))]
                try:
                    await self._append(batch)
                except Exception as error:
                    if not isinstance(error, ServiceError):
                        log.exception("a batch of writes failed")
                    for waiting in batch:
                        _settle(waiting, error)
            if self._closing:
                return

    async def _append(self, batch: list[_Waiting]) -> None:
        pause_s = _PAUSE_S
        for _ in range(TRIES_MAX):
            batch[:] = [waiting for waiting in batch if not waiting.answer.done()]
            if not batch:
                return
            try:
                plan, items, outcomes, later = await self._planned(await self._reads.head(), batch)
                taken = plan.is_empty or await self._take(plan, items)
            except Torn:
                taken = False
            if taken:
                # Refusals as well only now: each was judged by what the writes before it were to change.
                for waiting, outcome in outcomes:
                    _settle(waiting, outcome)
                self._line.extendleft(reversed(later))
                return
            metrics.write_races_lost.inc()
            await asyncio.sleep(random.uniform(0, pause_s))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        raise Unavailable(f"other replicas wrote first {TRIES_MAX} times in a row; try again")

    async def _planned(
        self, head: Head, batch: list[_Waiting]
    ) -> tuple[WritePlan, list[dict[str, Any]], list[tuple[_Waiting, Any]], list[_Waiting]]:
        """One plan for those that fit, its transaction, their answers or errors, and those that did not fit."""
        owners = {owner for waiting in batch for owner in waiting.write.owners}
        streams = await self._reads.streams(owners)
        skills = await self._reads.skills({id_ for waiting in batch for id_ in waiting.write.skill_ids})
        plan = WritePlan(head.epoch, head.end, streams)
        items: list[dict[str, Any]] = []
        outcomes: list[tuple[_Waiting, Any]] = []
        later: list[_Waiting] = []
        is_alone = False
        for waiting in batch:
            if not plan.is_empty and (waiting.write.alone or is_alone):
                later.append(waiting)
                continue
            longer, then = plan.fork(), skills | plan.states
            try:
                answer = await waiting.write.rule(longer, then)
                more = transaction(self._reads.tables, longer, self._reads.skills_prefix) + waiting.write.also
                fits = len(more) <= _ITEMS_MAX and size_of(more) <= _BYTES_MAX
                if not fits and plan.is_empty:
                    raise TooLarge("this is more than DynamoDB takes in one transaction; publish less at once")
            except ServiceError as error:
                outcomes.append((waiting, error))
                continue
            if not fits:
                later.append(waiting)
                continue
            plan, items, is_alone = longer, more, waiting.write.alone
            outcomes.append((waiting, answer))
        return plan, items, outcomes, later

    async def _take(self, plan: WritePlan, items: list[dict[str, Any]]) -> bool:
        """Commits the plan; False when it was made for a log that has moved on."""
        token = secrets.token_hex(16)
        for item in items:
            put = item.get("Put")
            if put and put["TableName"] == self._reads.tables.changes:
                put["Item"]["commit"] = {"S": token}
        unsure: Exception | None = None
        for attempt in range(_SENT_MAX):
            if attempt:
                await asyncio.sleep(random.uniform(0, _PAUSE_MAX_S))
            try:
                await self._reads.dynamodb.call(
                    "transact_write_items", idempotent=False, TransactItems=items, ClientRequestToken=token
                )
            except Refusal as refusal:
                reasons = {reason.get("Code") for reason in refusal.answer.get("CancellationReasons", [])}
                if reasons & _THROTTLED:
                    metrics.aws_failures.labels("dynamodb", "throttled").inc()
                    unsure = unsure or Unavailable("DynamoDB is throttled")
                    continue
                if refusal.code != "TransactionCanceledException" or not reasons & {
                    "ConditionalCheckFailed",
                    "TransactionConflict",
                }:
                    raise
                return unsure is not None and await self._is_ours(plan, token)
            except Unavailable as error:
                unsure = error
            else:
                return True
        if await self._is_ours(plan, token):
            return True
        assert unsure is not None
        raise unsure

    async def _is_ours(self, plan: WritePlan, token: str) -> bool:
        """Whether the row that this plan ends with is in the log, and is not another's."""
        key = HEAD_KEY if not plan.changes else to_item({"ns": NAMESPACE, "seq": plan.end.seq})
        row = await self._reads.get(self._reads.tables.changes, key)
        return row is not None and row.get("commit") == token


def _settle(waiting: _Waiting, outcome: Any) -> None:
    if waiting.answer.done():
        return  # its caller has gone
    if isinstance(outcome, Exception):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)


def write_for(skill_ids: set[str], rule: Callable[[WritePlan, Skills], Awaitable[Answer]]) -> Write[Answer]:
    owners = frozenset(skill_id.partition("/")[0] for skill_id in skill_ids)
    return Write(owners, frozenset(skill_ids), rule)


def kept(skills: Skills, skill_id: str) -> Skill:
    """Raises `NotFound`, also for one that was removed."""
    skill = skills.get(skill_id)
    if skill is None or skill.status == "removed":
        raise NotFound(f"there is no skill {skill_id}", skill=skill_id)
    return skill
