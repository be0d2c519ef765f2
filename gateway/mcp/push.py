"""Telling MCP clients of changes: listen streams of 2026-07-28 and sessions of before, both from the log."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog

from gateway.mcp import uris
from gateway.mcp.notices import EVERYONE, Notices, Reach
from gateway.mcp.streams import KEEPALIVE_S, ListenStreams
from gateway.mcp.tasks import task_heads
from services import metrics
from services.models import Change, Skill
from services.ports import CatalogSnapshot
from services.runs.runs import Runs
from services.skills.ranking import KIND as RANKED

# At most one notice of a kind in this time; the first of a burst goes out at once.
QUIET_S = 0.05
# The state of a task could not be read.
AGAIN_S = 1.0

log = structlog.get_logger(__name__)


class McpPush:
    """A `ChangeSink`: rows become notices, sent by one owned task.

    `streams` are all that listen; sessions of before are the SDK's, which says how they are told.
    """

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._due = Notices()
        self._due_tasks: set[str] = set()
        self._prompts_of: dict[str, object] = {}
        self._runs: Runs | None = None
        self._tell_sessions: Callable[[Notices], None] | None = None
        self._close_sessions: Callable[[], Awaitable[None]] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.streams = ListenStreams()

    def start(self, runs: Runs, served: Iterable[Skill]) -> None:
        """`runs` has the state of a task when the log says that it has changed; `served` is the catalog as it is."""
        self._runs = runs
        for skill in served:
            self._prompts_changed(skill)
        self._tasks = [
            asyncio.create_task(self._run(), name="mcp-push"),
            asyncio.create_task(self._keep_alive(), name="mcp-keep-alive"),
        ]

    def tell_sessions_with(self, tell: Callable[[Notices], None], close: Callable[[], Awaitable[None]]) -> None:
        self._tell_sessions, self._close_sessions = tell, close

    async def close(self) -> None:
        """Ends listen streams with their final frame."""
        self.streams.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._close_sessions is not None:
            await self._close_sessions()

    def apply(self, changes: Sequence[Change]) -> None:
        due = self._due
        runs = any(change.topic == "runs" for change in changes)
        watched = self.streams.watched_tasks() if runs else set()
        for change in changes:
            if change.topic == "runs":
                self._due_tasks |= watched & {msgspec.json.decode(change.data)["id"]}
            elif change.kind == RANKED:
                due.tools.add(EVERYONE)  # others are listed now, though none has changed
            elif change.topic == "tools":
                due.tools.add(Reach(change.owner, change.visibility))
            elif change.topic == "skills" and change.skill is not None:
                reach = Reach.of(change.skill)
                due.resources.add(reach)
                due.updated.update(dict.fromkeys(_uris_of(change.skill), reach))
                if self._prompts_changed(change.skill):
                    due.prompts.add(reach)
        self._news.set()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        self._due = Notices({EVERYONE}, {EVERYONE}, {EVERYONE})
        self._due_tasks |= self.streams.watched_tasks()
        for skill in snapshot.skills:
            self._due.updated.update(dict.fromkeys(_uris_of(skill), Reach.of(skill)))
            self._prompts_changed(skill)
        self._news.set()

    def _prompts_changed(self, skill: Skill) -> bool:
        """True unless the skill serves the prompts it was last seen with, or has never had any."""
        now = _prompts_of(skill)
        before = self._prompts_of.pop(skill.id, None)
        if now is not None:
            self._prompts_of[skill.id] = now
        return now != before

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            quiet_s = QUIET_S
            try:
                await self._send()
            except Exception:
                metrics.notice_failures.labels("mcp").inc()
                log.exception("a notice could not be sent to MCP clients")
                quiet_s = AGAIN_S
                self._news.set()
            await asyncio.sleep(quiet_s)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            self.streams.keep_alive()

    async def _send(self) -> None:
        due, self._due = self._due, Notices()
        if due:
            self.streams.tell(due)
            if self._tell_sessions is not None:
                self._tell_sessions(due)
        await self._send_tasks()

    async def _send_tasks(self) -> None:
        due, self._due_tasks = self._due_tasks, set()
        if due and self._runs is not None:
            try:
                heads = await task_heads(self._runs, due)
            except BaseException:
                self._due_tasks |= due
                raise
            self.streams.tell_tasks(heads)


def _uris_of(skill: Skill) -> list[str]:
    """What clients watch (`uris.watched`) of this skill."""
    declared = skill.active.tools if skill.active else ()
    return [
        uris.root(skill),
        *(f"{skill.owner}://{spec.uri}" for spec in declared if spec.kind == "resource"),
    ]


def _prompts_of(skill: Skill) -> object:
    """What a list of prompts shows of this skill; None for nothing."""
    if skill.active is None or skill.status != "active":
        return None
    fields = skill.active.frontmatter
    own = [spec for spec in skill.active.tools if spec.kind == "prompt"]
    invocable = fields.get("user-invocable") is True
    shown = [skill.active.description, fields.get("arguments"), fields.get("argument-hint")] if invocable else []
    return (own, shown) if own or shown else None
