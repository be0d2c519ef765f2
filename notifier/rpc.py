"""Commands that clients call: registered once, served by every connection."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from notifier.protocol import INVALID_PARAMS

# Codes of our own, in the range that JSON-RPC leaves to servers.
TIMED_OUT = -32001
DISCONNECTED = -32002
BUSY = -32029

T = TypeVar("T")


class RpcError(Exception):
    """An error as the other side sees it; `data` is anything msgspec can encode."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(slots=True, eq=False)
class RpcCall:
    """One call of a command. `params` is its JSON, `{}` when left out; `principal` is who the edge let in.

    `reverse(method, params, timeout_s)` calls the client back and returns its result; it raises `RpcError`. `report`
    sends progress, for a caller that asked for it.
    """

    method: str
    params: Raw
    principal: object
    reverse: Callable[[str, bytes, float], Awaitable[Raw]]
    report: Callable[[bytes], Awaitable[None]] | None = None
    _after_reply: list[Callable[[], None]] | None = None

    def decoded(self, params_type: type[T]) -> T:
        """The params as `params_type`; raises `RpcError` -32602 that says what is wrong."""
        try:
            return msgspec.json.decode(self.params, type=params_type)
        except msgspec.DecodeError as exc:
            raise RpcError(INVALID_PARAMS, "Invalid params", {"code": "invalid", "detail": str(exc)}) from exc

    async def progress(self, value: bytes) -> None:
        """Sends JSON ahead of the result, if the caller gave a progress token. Waits for a slow client."""
        if self.report is not None:
            await self.report(value)

    def after_reply(self, callback: Callable[[], None]) -> None:
        """Calls back once the reply is queued for sending, before anything else can be; also when there is none."""
        if self._after_reply is None:
            self._after_reply = []
        self._after_reply.append(callback)

    def replied(self) -> None:
        """For the connection: the time of what waits in `after_reply` has come."""
        if self._after_reply is not None:
            for callback in self._after_reply:
                callback()


# What answers with bytes does so at once, before the next message is read: it must not do anything that takes time.
Command = Callable[[RpcCall], Coroutine[Any, Any, bytes] | bytes]
TCommand = TypeVar("TCommand", bound=Command)


class Registered(NamedTuple):
    command: Command
    timeout_s: float = 30.0


class RpcRegistry:
    """Names to commands. A command is called where its message was read and returns its result as JSON bytes, or a
    coroutine that does: a plain function may answer what it can at once, and leave the rest to one.

    It may raise `RpcError`; any other exception goes through `translate`, which belongs to the edge.
    """

    def __init__(self, translate: Callable[[Exception], RpcError]) -> None:
        self.translate = translate
        self._commands: dict[str, Registered] = {}

    def add(self, name: str, command: Command, timeout_s: float = 30.0) -> None:
        """Raises ValueError for a name that is taken."""
        if name in self._commands:
            raise ValueError(f"command {name!r} is registered already")
        self._commands[name] = Registered(command, timeout_s)

    def command(self, name: str, timeout_s: float = 30.0) -> Callable[[TCommand], TCommand]:
        """`add` as a decorator."""

        def register(command: TCommand) -> TCommand:
            self.add(name, command, timeout_s)
            return command

        return register

    def find(self, name: str) -> Registered | None:
        return self._commands.get(name)

    @property
    def names(self) -> list[str]:
        return sorted(self._commands)


class CallMeta(msgspec.Struct, frozen=True):
    """`params._meta`, with MCP's names; `timeoutMs` can only shorten the command's own timeout."""

    progress_token: Raw | msgspec.UnsetType = msgspec.field(name="progressToken", default=msgspec.UNSET)
    timeout_ms: int | None = msgspec.field(name="timeoutMs", default=None)


class _WithMeta(msgspec.Struct, frozen=True):
    meta: CallMeta = msgspec.field(name="_meta", default_factory=CallMeta)


_decode_meta = msgspec.json.Decoder(_WithMeta).decode


def call_meta(params: Raw) -> CallMeta | None:
    """The `_meta` of an object's params, None when there is none. Raises `RpcError` -32602 when it is malformed."""
    text = bytes(params)
    if b'"_meta"' not in text or not text.startswith(b"{"):
        return None
    try:
        return _decode_meta(text).meta
    except msgspec.ValidationError as exc:
        raise RpcError(INVALID_PARAMS, "Invalid params", {"code": "invalid", "detail": str(exc)}) from exc
