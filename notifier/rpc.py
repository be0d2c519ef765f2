"""Commands that clients call: registered once, served by every connection."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

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

    `reverse(method, params, timeout_s)` calls the client back and returns its result; it raises `RpcError`.
    """

    method: str
    params: Raw
    principal: object
    reverse: Callable[[str, bytes, float], Awaitable[Raw]]
    _progress: Callable[[bytes], Awaitable[None]] | None = None
    _after_reply: list[Callable[[], None]] = field(default_factory=list)

    def decoded(self, params_type: type[T]) -> T:
        """The params as `params_type`; raises `RpcError` -32602 that says what is wrong."""
        try:
            return msgspec.json.decode(self.params, type=params_type)
        except msgspec.DecodeError as exc:
            raise RpcError(INVALID_PARAMS, "Invalid params", {"code": "invalid", "detail": str(exc)}) from exc

    async def progress(self, value: bytes) -> None:
        """Sends JSON ahead of the result, if the caller gave a progress token. Waits for a slow client."""
        if self._progress is not None:
            await self._progress(value)

    def after_reply(self, callback: Callable[[], None]) -> None:
        """Calls back once the reply is queued for sending, before anything else can be; also when there is none."""
        self._after_reply.append(callback)


# A plain function answers at once, before the next message is read; it must not do anything that takes time.
Command = Callable[[RpcCall], Awaitable[bytes] | bytes]
TCommand = TypeVar("TCommand", bound=Command)


class Registered(NamedTuple):
    """`is_plain` for a command that is no coroutine function."""

    command: Command
    timeout_s: float = 30.0
    is_plain: bool = False


class RpcRegistry:
    """Names to commands. A command returns its result as JSON bytes; a plain function is called where it stands.

    It may raise `RpcError`; any other exception goes through `translate`, which belongs to the edge.
    """

    def __init__(self, translate: Callable[[Exception], RpcError]) -> None:
        self.translate = translate
        self._commands: dict[str, Registered] = {}

    def add(self, name: str, command: Command, timeout_s: float = 30.0) -> None:
        """Raises ValueError for a name that is taken."""
        if name in self._commands:
            raise ValueError(f"command {name!r} is registered already")
        waits = inspect.iscoroutinefunction(command) or inspect.iscoroutinefunction(getattr(command, "__call__", None))  # noqa: B004  # an object whose call is a coroutine
        self._commands[name] = Registered(command, timeout_s, is_plain=not waits)

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


_NO_META = CallMeta()
_decode_meta = msgspec.json.Decoder(_WithMeta).decode


def call_meta(params: Raw | None) -> CallMeta:
    """The `_meta` of an object's params; raises `RpcError` -32602 for one that is malformed."""
    if params is None or not bytes(params).startswith(b"{") or b'"_meta"' not in bytes(params):
        return _NO_META
    try:
        return _decode_meta(params).meta
    except msgspec.ValidationError as exc:
        raise RpcError(INVALID_PARAMS, "Invalid params", {"code": "invalid", "detail": str(exc)}) from exc
