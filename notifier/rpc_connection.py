"""JSON-RPC over one connection, both ways: the calls of its client, and ours to it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import structlog
from msgspec import Raw

from notifier import protocol
from notifier.eager import Deadline, TimeIsUp, start_eagerly
from notifier.metrics import rpc_calls
from notifier.protocol import Batch, Invalid, Message, Notification, Request, Response
from notifier.rpc import BUSY, DISCONNECTED, TIMED_OUT, Registered, RpcCall, RpcError, RpcRegistry, call_meta

log = structlog.get_logger(__name__)

# Found once: a label that is looked up for every call costs more than its count.
_COUNTS = {
    outcome: rpc_calls.labels(outcome)
    for outcome in ("ok", "error", "unknown", "invalid", "timeout", "cancelled", "busy")
}

# push.md section 4: more than a screenful of dashboard needs, less than one client needs to starve the others.
CALLS_MAX = 64
_BUSY_RETRY_MS = 250
_EMPTY = Raw(b"{}")


class Cancelled(msgspec.Struct, frozen=True):
    """Params of `notifications/cancelled`."""

    request_id: Raw = msgspec.field(name="requestId")


class _Outcome(NamedTuple):
    """`reply` is None for a notification, and for a request that was cancelled (as in MCP)."""

    reply: bytes | None
    after_reply: Iterable[Callable[[], None]] = ()


_NOTHING = _Outcome(None)


class RpcConnection:
    """Owns the tasks of its calls; `close` cancels them and waits for their ends.

    `send` takes one encoded message and never waits; whoever can waits for `writable` first. `local` are commands
    of this connection alone; they go before those of the registry.
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
        self._running: dict[bytes, asyncio.Task[object]] = {}
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
            self._call_one(message)
            return
        messages = message.messages if isinstance(message, Batch) else (message,)
        outcomes: list[bytes] = []
        admitted: list[Request | Notification] = []
        for one in messages:
            if isinstance(one, Request | Notification) and self._admits(one):
                admitted.append(one)
            elif (reply := self._answered_at_once(one)) is not None:
                outcomes.append(reply)
        if admitted:
            self._start(self._answer(admitted, outcomes, is_batch=isinstance(message, Batch)))
        elif outcomes:
            self._post(protocol.encode_batch(outcomes) if isinstance(message, Batch) else outcomes[0])

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

    def _call_one(self, message: Request) -> None:
        found = self._find(message.method)
        if found is None or not found.is_plain:
            self._start(self._answer_one(message))
            return
        try:
            self._post(protocol.encode_result(message.id, self._plain(found, message)))
        except RpcError as exc:
            self._post(protocol.encode_error(message.id, exc.code, exc.message, exc.data))
        finally:
            self._in_flight -= 1

    def _plain(self, found: Registered, message: Request) -> bytes:
        outcome = "error"
        call = RpcCall(message.method, message.params or _EMPTY, self._principal, self.call)
        try:
            result = found.command(call)
            assert isinstance(result, bytes)
            outcome = "ok"
        except RpcError:
            raise
        except Exception as exc:  # the boundary of one request
            raise self._translated(message.method, exc) from exc
        finally:
            _COUNTS[outcome].inc()
        return result

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = start_eagerly(work, self._loop)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _find(self, method: str) -> Registered | None:
        return self._local.get(method) or self._registry.find(method)

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
                _COUNTS["invalid"].inc()
                return reply
            case Response():
                self._settle(message)
            case Request(request_id):
                _COUNTS["busy"].inc()
                busy = {"code": "exhausted", "retryable": True, "retryAfterMs": _BUSY_RETRY_MS}
                return protocol.encode_error(request_id, BUSY, "too many calls in flight", busy)
            case Notification("notifications/cancelled", params):
                self._cancel(params)
            case Notification(method):
                if not method.startswith("notifications/"):
                    _COUNTS["busy"].inc()
        return None

    def _cancel(self, params: Raw | None) -> None:
        try:
            request_id = bytes(msgspec.json.decode(params or _EMPTY, type=Cancelled).request_id)
        except msgspec.ValidationError:
            _COUNTS["invalid"].inc()
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

    async def _answer_one(self, message: Request) -> None:
        """Runs one call in the current task, and answers it."""
        after_reply: list[Callable[[], None]] = []
        try:
            reply = await self._reply(message, after_reply)
            await self._writable()
            self._post(reply)
        finally:
            for callback in after_reply:
                callback()

    async def _answer(self, messages: list[Request | Notification], replies: list[bytes], *, is_batch: bool) -> None:
        """Runs the calls of one incoming message side by side and sends their replies together."""
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(self._run(message)) for message in messages]
        outcomes = [_NOTHING if call.cancelled() else call.result() for call in calls]
        replies += [outcome.reply for outcome in outcomes if outcome.reply is not None]
        try:
            if replies:
                await self._send(protocol.encode_batch(replies) if is_batch else replies[0])
        finally:
            for outcome in outcomes:
                for callback in outcome.after_reply:
                    callback()

    async def _run(self, message: Request | Notification) -> _Outcome:
        after_reply: list[Callable[[], None]] = []
        try:
            reply = await self._reply(message, after_reply)
        except asyncio.CancelledError:
            for callback in after_reply:
                callback()
            raise
        return _Outcome(reply if isinstance(message, Request) else None, after_reply)

    async def _reply(self, message: Request | Notification, after_reply: list[Callable[[], None]]) -> bytes:
        """What one call is answered, if it is to be."""
        request_id = message.id if isinstance(message, Request) else b"null"
        task = asyncio.current_task(self._loop)
        assert task is not None
        if isinstance(message, Request):
            self._running[request_id] = task
        outcome = "cancelled"
        try:
            found = self._find(message.method)
            if found is None:
                outcome = "unknown"
                return protocol.encode_error(request_id, protocol.METHOD_NOT_FOUND, "Method not found")
            timeout_s, call = self._prepared(message, found, after_reply)
            with Deadline(timeout_s, task, self._loop):
                answer = found.command(call)
                result = answer if isinstance(answer, bytes) else await answer
            outcome = "ok"
            return protocol.encode_result(request_id, result)
        except RpcError as exc:
            outcome, error = "error", exc
        except TimeIsUp:
            outcome, error = "timeout", RpcError(TIMED_OUT, "timed out", {"code": "timeout", "retryable": True})
        except Exception as exc:  # noqa: BLE001  # the boundary of one request, which logs it
            outcome, error = "error", self._translated(message.method, exc)
        finally:
            _COUNTS[outcome].inc()
            self._in_flight -= 1
            if self._running.get(request_id) is task:
                del self._running[request_id]
        return protocol.encode_error(request_id, error.code, error.message, error.data)

    def _prepared(
        self, message: Request | Notification, found: Registered, after_reply: list[Callable[[], None]]
    ) -> tuple[float, RpcCall]:
        """The time that a call has, and the call. Raises `RpcError` for a malformed `_meta`."""
        meta = call_meta(message.params)
        timeout_s = found.timeout_s
        if meta.timeout_ms is not None:
            timeout_s = min(timeout_s, meta.timeout_ms / 1000)
        progress = None if meta.progress_token is msgspec.UNSET else self._progress_to(bytes(meta.progress_token))
        params = message.params or _EMPTY
        return timeout_s, RpcCall(message.method, params, self._principal, self.call, progress, after_reply)

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
