"""JSON-RPC over one connection, both ways: the calls of its client, and ours to it.

A call whose answer is at hand has no task: it is answered where its message was read. Only one that waits is written
down (`_Waiting`), with a timer for its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Raw

from notifier import protocol
from notifier.eager import EagerTask, start_eagerly
from notifier.metrics import Outcome, rpc_calls
from notifier.protocol import Batch, Invalid, Message, Notification, Request, Response
from notifier.rpc import BUSY, DISCONNECTED, TIMED_OUT, Registered, RpcCall, RpcError, RpcRegistry, call_meta

log = structlog.get_logger(__name__)

# push.md section 4: more than a screenful of dashboard needs, less than one client needs to starve the others.
CALLS_MAX = 64
_BUSY_RETRY_MS = 250
_EMPTY = Raw(b"{}")


class Cancelled(msgspec.Struct, frozen=True):
    """Params of `notifications/cancelled`."""

    request_id: Raw = msgspec.field(name="requestId")


# Takes the reply to a call: None for a notification, and for a request that was cancelled (as in MCP).
End = Callable[[bytes | None, RpcCall], None]


class _Waiting:
    """A call that has not ended at once; `end` takes its reply."""

    __slots__ = ("call", "end", "is_late", "request_id", "task", "timer")

    timer: asyncio.TimerHandle

    def __init__(
        self, request_id: bytes | None, call: RpcCall, end: End, task: "asyncio.Task[bytes] | EagerTask[bytes]"
    ) -> None:
        self.request_id = request_id
        self.call = call
        self.end = end
        self.task = task
        self.is_late = False

    def time_out(self) -> None:
        self.is_late = True
        self.task.cancel()

    @property
    def is_over_time(self) -> bool:
        """Ended by its deadline alone: when somebody else has cancelled it as well, that comes first."""
        return self.is_late and self.task.cancelling() == 1


class _Batch:
    """The replies to one array of calls, which are sent together; `post` sends."""

    def __init__(self, replies: list[bytes], calls: int, post: Callable[[bytes], None]) -> None:
        self._replies = replies
        self._missing = calls
        self._ended: list[RpcCall] = []
        self._post = post

    def take(self, reply: bytes | None, call: RpcCall) -> None:
        if reply is not None:
            self._replies.append(reply)
        self._ended.append(call)
        self._missing -= 1
        if self._missing:
            return
        if self._replies:
            self._post(protocol.encode_batch(self._replies))
        for each in self._ended:
            each.replied()


class RpcConnection:
    """Owns the tasks of its calls; `close` cancels them and waits for their ends.

    `send` takes one encoded message and never waits. A reply is sent without asking: it is in memory already, and a
    client that does not read is not read from. What a command says meanwhile waits for `writable` first. `local` are
    commands of this connection alone; they go before those of the registry.
    """

    __slots__ = (
        "_in_flight", "_is_closed", "_is_finishing", "_local", "_loop", "_number", "_post", "_principal", "_registry",
        "_running", "_tasks", "_waiting", "_writable",
    )  # fmt: skip

    def __init__(
        self,
        registry: RpcRegistry,
        principal: object,
        send: Callable[[bytes], None],
        writable: Callable[[], Awaitable[None]],
        local: Mapping[str, Registered],
    ) -> None:
        self._registry = registry
        self._principal = principal
        self._post = send
        self._writable = writable
        self._local = local
        self._in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._running: dict[bytes, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._waiting: dict[bytes, asyncio.Future[Raw]] = {}
        self._number = 0  # of our newest call
        self._is_finishing = False
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """True while calls of the client run."""
        return bool(self._tasks)

    @property
    def is_waiting(self) -> bool:
        """True while either side waits for an answer."""
        return bool(self._tasks or self._waiting)

    def receive(self, text: str | bytes) -> None:
        """Handles one message: answers what can be answered at once, and starts its calls. Never raises for what
        the client sent."""
        message = protocol.parse(text)
        if isinstance(message, Request) and self._admits(message):
            self._begin(message, message.id, self._reply)
            return
        messages = message.messages if isinstance(message, Batch) else (message,)
        replies: list[bytes] = []
        admitted: list[Request | Notification] = []
        for one in messages:
            if isinstance(one, Request | Notification) and self._admits(one):
                admitted.append(one)
            elif (reply := self._answered_at_once(one)) is not None:
                replies.append(reply)
        if not isinstance(message, Batch):
            end = self._reply
        elif admitted:
            end = _Batch(replies, len(admitted), self._post).take
        else:
            replies = [protocol.encode_batch(replies)] if replies else []
        for one in admitted:
            self._begin(one, one.id if isinstance(one, Request) else None, end)
        if not admitted and replies:
            self._post(replies[0])

    async def call(self, method: str, params: bytes, timeout_s: float) -> Raw:
        """Calls the client and returns its result (JSON). Raises `RpcError`: the client's own, or ours."""
        if self._is_closed:
            raise RpcError(DISCONNECTED, "the client has gone")
        if len(self._waiting) >= CALLS_MAX:
            raise RpcError(BUSY, "too many calls to this client", {"retryAfterMs": _BUSY_RETRY_MS})
        self._number += 1
        number = f"s-{self._number}"
        key = msgspec.json.encode(number)
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(protocol.encode_request(number, method, params))
                return await answer
        except TimeoutError as exc:
            raise RpcError(TIMED_OUT, "the client did not answer in time") from exc
        finally:
            del self._waiting[key]

    async def finish(self) -> None:
        """Refuses new calls as busy; returns when those that run have been answered."""
        self._is_finishing = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancels what is running, fails what waits for the client; returns when all tasks have ended."""
        self._is_closed = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(RpcError(DISCONNECTED, "the client has gone"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, message: Request | Notification, request_id: bytes | None, end: End) -> None:
        """Runs a call to where it waits first, which is its end as a rule."""
        call = RpcCall(message.method, message.params or _EMPTY, self._principal, self.call)
        found = self._local.get(message.method) or self._registry.find(message.method)
        if found is None:
            unknown = RpcError(protocol.METHOD_NOT_FOUND, "Method not found")
            self._fail(request_id, call, end, unknown, "unknown")
            return
        try:
            timeout_s = found.timeout_s if message.params is None else self._heeded(call, found.timeout_s)
            answer = found.command(call)
            if not isinstance(answer, bytes):
                task = start_eagerly(answer, self._loop)
                if not task.done():
                    self._wait(_Waiting(request_id, call, end, task), timeout_s)
                    return
                answer = task.result()
        except asyncio.CancelledError:
            self._end(call, end, None, "cancelled")
        except Exception as exc:  # noqa: BLE001  # the boundary of one request, which logs it
            self._fail(request_id, call, end, exc)
        else:
            self._end(call, end, None if request_id is None else protocol.encode_result(request_id, answer), "ok")

    def _heeded(self, call: RpcCall, timeout_s: float) -> float:
        """The time that the call has, once it knows what its `_meta` says. Raises `RpcError` when that is malformed."""
        meta = call_meta(call.params)
        if meta is None:
            return timeout_s
        if meta.progress_token is not msgspec.UNSET:
            call.report = self._progress_to(bytes(meta.progress_token))
        return timeout_s if meta.timeout_ms is None else min(timeout_s, meta.timeout_ms / 1000)

    def _wait(self, waiting: _Waiting, timeout_s: float) -> None:
        self._tasks.add(waiting.task)
        if waiting.request_id is not None:
            self._running[waiting.request_id] = waiting.task
        waiting.timer = self._loop.call_later(timeout_s, waiting.time_out)
        waiting.task.add_done_callback(partial(self._take_end, waiting))

    def _take_end(self, waiting: _Waiting, task: "asyncio.Future[bytes]") -> None:
        waiting.timer.cancel()
        self._tasks.discard(task)
        request_id, call, end = waiting.request_id, waiting.call, waiting.end
        if request_id is not None and self._running.get(request_id) is task:
            del self._running[request_id]
        try:
            answer = task.result()
        except asyncio.CancelledError:
            if waiting.is_over_time:
                late = RpcError(TIMED_OUT, "timed out", {"code": "timeout", "retryable": True})
                self._fail(request_id, call, end, late, "timeout")
            else:
                self._end(call, end, None, "cancelled")
        except Exception as exc:  # noqa: BLE001  # the boundary of one request, which logs it
            self._fail(request_id, call, end, exc)
        else:
            self._end(call, end, None if request_id is None else protocol.encode_result(request_id, answer), "ok")

    def _fail(
        self, request_id: bytes | None, call: RpcCall, end: End, exc: Exception, outcome: Outcome = "error"
    ) -> None:
        error = exc if isinstance(exc, RpcError) else self._translated(call.method, exc)
        reply = None
        if request_id is not None:
            reply = protocol.encode_error(request_id, error.code, error.message, error.data)
        self._end(call, end, reply, outcome)

    def _end(self, call: RpcCall, end: End, reply: bytes | None, outcome: Outcome) -> None:
        rpc_calls.by_outcome[outcome] += 1
        self._in_flight -= 1
        end(reply, call)

    def _reply(self, reply: bytes | None, call: RpcCall) -> None:
        if reply is not None:
            self._post(reply)
        call.replied()

    async def _send(self, message: bytes) -> None:
        await self._writable()
        self._post(message)

    def _admits(self, message: Request | Notification) -> bool:
        if isinstance(message, Notification) and message.method.startswith("notifications/"):
            return False
        if self._is_finishing or self._in_flight >= CALLS_MAX:
            return False
        self._in_flight += 1
        return True

    def _answered_at_once(self, message: Message) -> bytes | None:
        """The reply to what starts no call; None when there is none to give."""
        match message:
            case Invalid(reply):
                rpc_calls.by_outcome["invalid"] += 1
                return reply
            case Response():
                self._settle(message)
            case Request(request_id):
                rpc_calls.by_outcome["busy"] += 1
                busy = {"code": "exhausted", "retryable": True, "retryAfterMs": _BUSY_RETRY_MS}
                return protocol.encode_error(request_id, BUSY, "too many calls in flight", busy)
            case Notification("notifications/cancelled", params):
                self._cancel(params)
            case Notification(method):
                if not method.startswith("notifications/"):
                    rpc_calls.by_outcome["busy"] += 1
        return None

    def _cancel(self, params: Raw | None) -> None:
        try:
            request_id = bytes(msgspec.json.decode(params or _EMPTY, type=Cancelled).request_id)
        except msgspec.ValidationError:
            rpc_calls.by_outcome["invalid"] += 1
            return
        if (task := self._running.get(request_id)) is not None:
            task.cancel()

    def _settle(self, response: Response) -> None:
        answer = self._waiting.get(response.id)
        if answer is None or answer.done():
            return
        if response.result is not None:
            answer.set_result(response.result)
            return
        assert response.error is not None
        try:
            error = msgspec.json.decode(response.error, type=_ClientError)
        except msgspec.ValidationError:
            error = _ClientError(protocol.INTERNAL_ERROR, "the client's error is malformed")
        answer.set_exception(RpcError(error.code, error.message, error.data))

    def _translated(self, method: str, exc: Exception) -> RpcError:
        error = self._registry.translate(exc)
        if error.code == protocol.INTERNAL_ERROR:
            log.error("command failed", method=method, exc_info=exc)
        return error

    def _progress_to(self, token: bytes) -> Callable[[bytes], Awaitable[None]]:
        async def send(value: bytes) -> None:
            params = b'{"progressToken":%s,"value":%s}' % (token, value)
            await self._send(protocol.encode_notification("notifications/progress", params))

        return send


class _ClientError(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: object = None
