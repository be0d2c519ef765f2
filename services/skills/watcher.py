"""Watching a folder of skills: a saved file becomes a version.

Operating system events come through watchfiles, or polling where there are none (network disks),
where the system has no more watches to give, or once a name is not UTF-8, which watchfiles cannot
tell of. An edit is taken once nothing moved for `EDIT_QUIET_S`, after `EDIT_WAIT_MAX_S` at the latest; a
folder that is new waits for `NEW_QUIET_S`, because it is usually still being copied; a vanished one for `GONE_QUIET_S`,
because editors and git remove and rewrite. Of several replicas on one store, the one that holds
the lease of the source scans.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import structlog
import watchfiles

from services import metrics
from services.clock import Monotonic, monotonic_s
from services.failures import Unavailable
from services.ports import MetadataStore
from services.skills.package import find_roots, is_litter
from services.skills.polling import poll
from services.skills.scan import FolderScan

EDIT_QUIET_S = 0.02
EDIT_WAIT_MAX_S = 0.2
NEW_QUIET_S = 0.3
GONE_QUIET_S = 2.0
# watchfiles looks this often and hands out events once a look found no further ones: they are between
# one and two looks old then. Its own quiet time would be a multiple of its step, 30 to 60 ms for 30.
_LOOK_MS = 5
_HAND_OUT_MAX_MS = 20
_POLL_S = 0.5
_LEASE_S = 10.0
_RENEW_S = 3.0
_LOOK_S = 1.0

log = structlog.get_logger(__name__)


class FolderWatcher:
    """Owns the task that follows one folder; start it with `start`, end it with `close`."""

    def __init__(
        self,
        scan: FolderScan,
        store: MetadataStore,
        *,
        replica: str,
        polling: bool,
        clock: Monotonic = monotonic_s,
    ) -> None:
        self._scan = scan
        self._store = store
        self._replica = replica
        self._polling = polling
        self._clock = clock
        self._due: dict[str, float] = {}
        # Since when each package that is due has been touched.
        self._touched: dict[str, float] = {}
        self._dirty = asyncio.Event()
        self._scanning = asyncio.Lock()  # a scan takes one call at a time
        self._resolved = scan.root
        self.no_events = ""
        """Why this folder is polled although events were asked for; empty while they come."""
        self._task: asyncio.Task[None] | None = None
        self.scanned = asyncio.Event()
        self.state = "starting"
        """`starting`, `waiting` for the lease, `scanning`, `watching`, or `failing`."""

    @property
    def root(self) -> Path:
        return self._scan.root

    @property
    def source(self) -> str:
        return self._scan.source

    @property
    def held(self) -> str:
        return self._scan.held

    async def rescan(self, skill_id: str | None = None) -> int:
        """Looks at the folder now, or at the packages of one skill; answers how many were published or
        noted anew. Raises `Unavailable` where this replica does not scan."""
        async with self._scanning:
            if self.state not in ("scanning", "watching"):
                raise Unavailable(
                    f"this replica does not scan {self.root.name}: {self.state}", code="not_scanning", state=self.state
                )
            with metrics.scan_seconds.time():
                return await (self._scan.everything() if skill_id is None else self._scan.skill(skill_id))

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"watch {self.root.name}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._store.release_lease(self._scan.source, self._replica)

    async def _run(self) -> None:
        while True:
            try:
                if not await self._store.acquire_lease(self._scan.source, self._replica, _LEASE_S):
                    self.state = "waiting"
                elif (folder := await asyncio.to_thread(_identity, self.root)) is None:
                    self.state = "failing"
                    await self._scan.everything()  # holds everything, and says so
                else:
                    self._resolved = await asyncio.to_thread(self.root.resolve)
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._keep_lease())
                        group.create_task(self._keep_folder(folder))
                        group.create_task(self._listen())
                        group.create_task(self._follow())
            except Exception:
                self.state = "failing"
                metrics.watch_failures.inc()
                log.exception("watching failed; trying again", folder=str(self.root))
            await asyncio.sleep(_RENEW_S if self.state == "waiting" else _LOOK_S)

    async def _keep_lease(self) -> None:
        while True:
            if not await self._store.acquire_lease(self._scan.source, self._replica, _LEASE_S):
                raise RuntimeError("another replica took the lease of this folder")
            await asyncio.sleep(_RENEW_S)

    async def _keep_folder(self, folder: tuple[int, int]) -> None:
        # The operating system goes on watching the folder that was there, not the one that takes its name.
        while True:
            if await asyncio.to_thread(_identity, self.root) != folder:
                raise RuntimeError("this folder is gone, or another one has its name")
            await asyncio.sleep(_LOOK_S)

    async def _listen(self) -> None:
        """Notes when each package that an event touches is due."""
        async with aclosing(self._events()) as events:
            async for paths in events:
                self._due.update(await asyncio.to_thread(self._due_after, paths))
                self._dirty.set()

    async def _events(self) -> AsyncGenerator[list[Path], None]:
        if not self._polling:
            events = watchfiles.awatch(
                self._resolved,
                watch_filter=lambda _, path: self._is_ours(Path(path)),
                step=_LOOK_MS,
                debounce=_HAND_OUT_MAX_MS,
            )
            try:
                async for changes in events:
                    yield [Path(path) for _, path in changes]
            except (ExceptionGroup, RuntimeError, OSError) as failed:
                self._poll_from_now_on(failed)
        # Its first look finds everything changed, also what came between the last event and it.
        async with aclosing(poll(self._resolved, _POLL_S)) as looks:
            async for changed in looks:
                yield [path for path in changed if self._is_ours(path)]

    def _poll_from_now_on(self, failed: Exception) -> None:
        """Raises the failure again when polling would not help."""
        reason: Exception = failed
        while isinstance(reason, ExceptionGroup):  # of the thread in which watchfiles waits
            reason = reason.exceptions[0]
        if isinstance(reason, FileNotFoundError) or not isinstance(reason, RuntimeError | OSError):
            raise failed
        self._polling, self.no_events = True, str(reason)
        metrics.watch_failures.inc()
        log.warning("the folder is polled: the system's events cannot be had", folder=str(self.root), reason=str(reason))

    def _is_ours(self, changed: Path) -> bool:
        # Below the root only: a root may stand in a folder that would be litter within a package.
        return changed.is_relative_to(self._resolved) and not is_litter(changed.relative_to(self._resolved))

    def _due_after(self, events: list[Path]) -> dict[str, float]:
        """When each package that these events touch is to be taken.

        A file belongs to every package above it; a folder that was moved here may hold several.
        """
        root = self._resolved
        touched: set[Path] = set()
        for changed in events:
            touched.update((changed, *changed.parents))
            touched.update(find_roots(changed))
            # One event says that a folder was moved away, none that its packages went with it.
            touched.update(root / path for path in self._scan.known_under(changed.relative_to(root).as_posix()))
        now = self._clock()
        quiet_s = 0.0 if self._polling else EDIT_QUIET_S - _LOOK_MS / 1000
        due: dict[str, float] = {}
        for folder in touched:
            if folder == root or not folder.is_relative_to(root):
                continue
            path = folder.relative_to(root).as_posix()
            if self._scan.knows(path):
                # Whatever is written without a pause is taken all the same, as it is by then.
                latest = self._touched.setdefault(path, now) + EDIT_WAIT_MAX_S
                due[path] = min(now + quiet_s, latest) if self._scan.holds(path) else now + GONE_QUIET_S
            elif folder.is_dir() or folder.parent == root:
                due[path] = now + NEW_QUIET_S
        return due

    async def _follow(self) -> None:
        self.state = "scanning"
        async with self._scanning:
            with metrics.scan_seconds.time():
                published = await self._scan.everything(trusting=True)
        log.info("folder scanned", folder=str(self.root), published=published)
        self.scanned.set()
        self.state = "watching"
        while True:
            await self._wait_for_news()
            now = self._clock()
            due = [path for path, at in self._due.items() if at <= now]
            for path in due:
                del self._due[path]
                self._touched.pop(path, None)
            if due:
                async with self._scanning:
                    with metrics.scan_seconds.time():
                        await self._take(due)

    async def _wait_for_news(self) -> None:
        wait_s = max(0.0, min(self._due.values()) - self._clock()) if self._due else None
        try:
            async with asyncio.timeout(wait_s):
                await self._dirty.wait()
        except TimeoutError:
            return
        self._dirty.clear()

    async def _take(self, due: list[str]) -> None:
        packages = await asyncio.to_thread(lambda: [path for path in due if self._scan.holds(path)])
        await self._scan.packages(packages)
        await self._scan.remove(path for path in due if self._scan.knows(path) and path not in packages)
        if any("/" not in path for path in due if path not in packages):
            await self._scan.note_bare_folders()


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another of the same name; None when there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
