"""Warm workers for skills' tools: a script is loaded once and called many times.

A worker serves one key (digest, script, network, memory) and one call at a time. A call takes
the idle worker of its key that was used last; else it starts one; else, at `workers_max`, it
waits in a fair bounded line, and an idle worker of another key is ended to make room.

    fault                            what the caller gets            the worker
    the tool raises                  ToolFailed tool_failed          stays
    it takes longer than timeout_s   Timeout                         killed, with all it started
    it dies, or corrupts its socket  ToolFailed worker_crashed       gone, nobody else is harmed
    it runs out of memory            ToolFailed memory_exceeded      ended
    the caller is cancelled          CancelledError                  killed: the call must not go on
    the line is full                 Exhausted queue_full            -

State that a script keeps between its calls is shared by all callers of that skill, whatever
their tenant; files it writes are not (the worker clears them).
"""

import asyncio
from typing import Any, Literal

import msgspec
import structlog

from services import metrics
from services.clock import Monotonic, monotonic_s
from services.execution.fair_line import FairLine
from services.execution.jobs import Command, Job, Outcome, parse_command
from services.execution.process import WorkerEnded, WorkerKey, WorkerProcess, rss_bytes
from services.execution.sandbox import WORKER_PATH, Sandbox
from services.failures import Exhausted, Forbidden, Invalid, Timeout, TooLarge, ToolFailed, Unavailable

ARGUMENTS_BYTES_MAX = 1024 * 1024
_TERMINATE_S = 1.0
_KILL_S = 5.0

_logger = structlog.get_logger(__name__)


class _Problem(msgspec.Struct):
    """The codes are a closed set: a tool that forges frames must not mint metric labels."""

    code: Literal["tool_failed", "memory_exceeded", "no_function", "no_program", "result_not_json", "result_too_large"]
    type: str
    message: str
    traceback: str = ""


class _Ready(msgspec.Struct):
    ready: bool
    load_ms: float = 0.0
    error: _Problem | None = None


class _Answer(msgspec.Struct):
    id: int
    ok: bool
    ms: float
    logs: str = ""
    result: Any = None
    error: _Problem | None = None


class WorkerStats(msgspec.Struct, frozen=True):
    """A live worker. `loads` is how often its script was loaded: 1 once it is ready, by design."""

    pid: int
    key: WorkerKey
    calls: int
    loads: int
    age_s: float
    rss_bytes: int
    is_idle: bool


class _Waiter(msgspec.Struct, eq=False):
    key: WorkerKey
    granted: "asyncio.Future[WorkerProcess]"


_encode = msgspec.json.Encoder().encode
_decode_ready = msgspec.json.Decoder(_Ready).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class WorkerPool:
    """For one event loop; `close` must be awaited.

    A worker is recycled after `recycle_calls` calls and ended after `idle_s` without one.
    `queue_wait_s` bounds how long a call waits for a worker.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        workers_max: int,
        queue_max: int,
        recycle_calls: int = 1000,
        idle_s: float = 300.0,
        queue_wait_s: float = 30.0,
        clock: Monotonic = monotonic_s,
    ) -> None:
        self._sandbox = sandbox
        self._workers_max = workers_max
        self._recycle_calls = recycle_calls
        self._idle_s = idle_s
        self._queue_wait_s = queue_wait_s
        self._clock = clock
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []  # least recently used first
        self._line: FairLine[_Waiter] = FairLine(queue_max)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._all_ended = asyncio.Event()
        self._last_id = 0

    async def call(self, job: Job) -> Outcome:
        """Runs one call. Raises `ToolFailed`, `Timeout`, `Exhausted`, `Unavailable`, `Forbidden`,
        `Invalid`, `TooLarge`; when cancelled, the work is stopped at once."""
        began = self._clock()
        self._refuse(job)
        command = parse_command(job.tool.command)
        script = command.script if command.function is not None else ""
        call_id = self._last_id = self._last_id + 1
        request = _request(call_id, job, command)
        worker = await self._obtain(job.tenant, WorkerKey(job.digest, script, job.tool.network, job.tool.memory_mb))
        warm = worker.is_ready
        try:
            answer = await self._attend(worker, job, call_id, request)
        finally:
            self._give_back(worker)
        if warm:
            metrics.worker_calls_reused.inc()
        if answer.error is not None:
            raise _tool_failed(answer.error, job, answer.logs)
        return Outcome(answer.result, answer.logs, worker.pid, warm, (self._clock() - began) * 1000)

    def stats(self) -> list[WorkerStats]:
        """Every live worker, oldest first; reads /proc, so not for a hot path."""
        now = monotonic_s()
        return [
            WorkerStats(
                pid=worker.pid,
                key=worker.key,
                calls=worker.calls,
                loads=int(worker.is_ready),
                age_s=now - worker.started_at,
                rss_bytes=rss_bytes(worker.pid),
                is_idle=worker in self._idle,
            )
            for worker in sorted(self._workers, key=lambda worker: worker.started_at)
            if worker.has_process
        ]

    @property
    def waiting(self) -> int:
        """Calls that wait for a worker."""
        return len(self._line)

    async def close(self) -> None:
        """Refuses new and waiting calls, ends every worker and returns when no process is left."""
        self._is_closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        while len(self._line):
            waiter = self._line.pop()
            if not waiter.granted.done():
                waiter.granted.set_exception(_closing())
        if not self._workers:
            return
        for worker in self._workers:
            worker.terminate("closed")
        try:
            async with asyncio.timeout(_TERMINATE_S):
                await self._all_ended.wait()
        except TimeoutError:
            for worker in self._workers:
                worker.kill("closed")
            async with asyncio.timeout(_KILL_S):
                await self._all_ended.wait()

    def _refuse(self, job: Job) -> None:
        if self._is_closed:
            raise _closing()
        if not self._sandbox.available:
            raise Unavailable(f"no sandbox, no run: {self._sandbox.reason}", code="no_sandbox")
        if job.tool.network:
            raise Forbidden(
                f"the tool {job.tool.name!r} asks for the network, which this service gives to no tool",
                code="network_not_allowed",
            )

    async def _attend(self, worker: WorkerProcess, job: Job, call_id: int, request: bytes) -> _Answer:
        """One call on a worker that is ours; a worker that cannot be trusted after it is killed."""
        timer = asyncio.get_running_loop().call_later(job.timeout_s, worker.kill, "timeout")
        try:
            if not worker.is_ready:
                await self._start(worker, job)
            hear = job.dialogue.hear if job.dialogue is not None else None
            answer = _decode_answer(await worker.ask(request, hear))
            if answer.id != call_id or answer.ok is (answer.error is not None):
                raise msgspec.ValidationError("it answers another call")
        except WorkerEnded:
            raise _ended_early(worker, job) from None
        except msgspec.DecodeError as error:
            worker.kill("protocol")
            raise ToolFailed(f"the worker's frame cannot be read: {error}", code="worker_crashed") from error
        except asyncio.CancelledError:
            worker.kill("cancelled")
            raise
        finally:
            timer.cancel()
        worker.calls += 1
        if answer.error is not None and answer.error.code == "memory_exceeded":
            worker.kill("memory")  # what fills it may stay reachable from the tool's own globals
        return answer

    async def _start(self, worker: WorkerProcess, job: Job) -> None:
        argv = self._sandbox.argv(job.package_dir, network=worker.key.network)
        argv += [self._sandbox.python, "-ISB", "-X", "utf8", WORKER_PATH]
        try:
            ready = _decode_ready(await worker.start(argv, worker.key.script, worker.key.memory_mb))
        except OSError as error:
            raise Unavailable(f"no worker could be started: {error}", code="worker_not_started") from error
        if ready.error is not None or not ready.ready:
            worker.kill("load_failed")
            raise _load_failed(ready.error, job)
        worker.is_ready = True
        _logger.debug("worker ready", pid=worker.pid, digest=job.digest, load_ms=ready.load_ms)

    async def _obtain(self, tenant: str, key: WorkerKey) -> WorkerProcess:
        """A worker that is ours until `_give_back`: warm, or with its process yet to be started."""
        if not len(self._line) and (worker := self._take(key)) is not None:
            return worker
        waiter = _Waiter(key, asyncio.get_running_loop().create_future())
        self._line.join(tenant, waiter)
        self._dispatch()
        try:
            async with asyncio.timeout(self._queue_wait_s):
                return await waiter.granted
        except BaseException as error:
            self._line.leave(tenant, waiter)
            if waiter.granted.done() and not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self._give_back(waiter.granted.result())  # granted in the same tick as the caller left
            if isinstance(error, TimeoutError):
                message = f"no worker came free within {self._queue_wait_s:g} s"
                raise Exhausted(message, code="queue_timeout") from error
            raise

    def _take(self, key: WorkerKey) -> WorkerProcess | None:
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].key == key:
                return self._idle.pop(at)
        if len(self._workers) >= self._workers_max:
            return None
        worker = WorkerProcess(key, self._worker_started, self._worker_ended)
        self._workers.add(worker)
        return worker

    def _give_back(self, worker: WorkerProcess) -> None:
        if not worker.has_process:
            self._forget(worker)  # it never started, or has ended already
        elif worker.end_reason is None:
            if not worker.is_ready:
                worker.kill("load_failed")
            elif worker.calls >= self._recycle_calls:
                worker.kill("recycled")
            else:
                worker.idle_since = self._clock()
                self._idle.append(worker)
                self._arm_sweep()
        self._dispatch()

    def _dispatch(self) -> None:
        """Grants workers to those who wait, in turn, as far as there are any."""
        while (waiter := self._line.first()) is not None:
            if not waiter.granted.done():
                worker = self._take(waiter.key)
                if worker is None:
                    self._make_room()
                    return
                waiter.granted.set_result(worker)
            self._line.pop()

    def _make_room(self) -> None:
        """Ends the idle worker that was used least recently, unless a place comes free anyway."""
        if self._idle and all(worker.end_reason is None for worker in self._workers):
            self._idle.pop(0).kill("evicted")

    def _worker_started(self) -> None:
        metrics.worker_starts.inc()
        metrics.workers.inc()

    def _worker_ended(self, worker: WorkerProcess) -> None:
        if worker.pid:
            metrics.workers.dec()
            metrics.worker_ends.labels(worker.end_reason).inc()
        if worker in self._idle:
            self._idle.remove(worker)
        self._forget(worker)
        self._dispatch()

    def _forget(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        if self._is_closed and not self._workers:
            self._all_ended.set()

    def _arm_sweep(self) -> None:
        if self._sweep_timer is None and self._idle:
            delay = max(0.0, self._idle[0].idle_since + self._idle_s - self._clock())
            self._sweep_timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        while self._idle and self._idle[0].idle_since + self._idle_s <= self._clock():
            self._idle.pop(0).kill("idle")
        self._arm_sweep()


def _request(call_id: int, job: Job, command: Command) -> bytes:
    frame: dict[str, Any] = {"id": call_id, "cpu_s": job.timeout_s, "arguments": job.arguments}
    if command.function is not None:
        frame["function"] = command.function
    else:
        frame["argv"] = command.argv
    if job.dialogue is not None:
        frame["call"] = job.dialogue.known()
    try:
        payload = _encode(frame)
    except (UnicodeEncodeError, TypeError) as error:
        raise Invalid(f"the arguments are not JSON: {error}") from error
    if len(payload) > ARGUMENTS_BYTES_MAX:
        raise TooLarge(f"the arguments have {len(payload)} bytes; {ARGUMENTS_BYTES_MAX} is the most")
    return payload


def _ended_early(worker: WorkerProcess, job: Job) -> Exception:
    if worker.end_reason == "timeout":
        return Timeout(f"the tool {job.tool.name!r} was stopped after {job.timeout_s:g} s")
    if worker.end_reason == "closed":
        return _closing()
    if not worker.is_ready:
        message = f"the worker ended before it was ready: {worker.said or 'no reason given'}"
        return ToolFailed(message, code="worker_crashed")
    return ToolFailed(f"the worker ended while {job.tool.name!r} ran", code="worker_crashed")


def _closing() -> Unavailable:
    return Unavailable("the service is closing", code="closing")


def _tool_failed(problem: _Problem, job: Job, logs: str) -> ToolFailed:
    return ToolFailed(
        f"{problem.type}: {problem.message}" if problem.type != "ToolError" else problem.message,
        code=problem.code,
        tool=job.tool.name,
        error_type=problem.type,
        traceback=problem.traceback,
        logs=logs,
    )


def _load_failed(problem: _Problem | None, job: Job) -> ToolFailed:
    said = f"{problem.type}: {problem.message}" if problem is not None else "no reason given"
    trace = problem.traceback if problem is not None else ""
    return ToolFailed(f"the script does not load: {said}", code="load_failed", tool=job.tool.name, traceback=trace)
