"""`skillwire watch` and `skillwire rpc`: a running service's events and commands, from a terminal."""

import asyncio
import random
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import click
import msgspec
import websockets
from websockets.asyncio.client import ClientConnection, connect

from notifier.close_codes import reconnects
from services.clock import monotonic_s

_OPEN_S = 10.0
# Three heartbeats missed.
_SILENCE_S = 50.0
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_BACKOFF_S = (0.5, 20.0)

_url = click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service.")
_key = click.option("--key", envvar="SKILLWIRE_KEY", help="An API key. [env: SKILLWIRE_KEY]")


class _Message(msgspec.Struct):
    id: int | str | None = None
    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, object] | None = None


class _Position(msgspec.Struct):
    id: str = ""
    position: str = ""
    retry_ms: int = msgspec.field(name="retryMs", default=0)


class Watch:
    """Follows topics over as many connections as it takes. `show` gets each event and each reset once, as JSON."""

    def __init__(self, url: str, key: str | None, topics: list[str], since: str | None, show: Callable[[bytes], None]):
        self._url = url
        self._key = key
        self._topics = topics
        self._cursor = since
        self._show = show
        self._wait_ms = 0  # what the server asked for with its goodbye
        self._attempt = 0

    async def run(self) -> None:
        """Until cancelled. Raises `ClickException` when the service says not to come back."""
        while True:
            try:
                async with opened(self._url, self._key) as socket:
                    await self._follow(socket)
            except websockets.ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd is not None else 1006
                if not reconnects(code):
                    raise click.ClickException(f"the service closed the connection: {error}") from error
            except websockets.InvalidStatus as error:
                if error.response.status_code < 500:
                    raise click.ClickException(f"the service refuses: {error}") from error
            except (OSError, TimeoutError, websockets.InvalidHandshake):
                pass  # it is away: that is what the wait is for
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        low, high = _BACKOFF_S
        jittered = low + random.uniform(0, min(high, low * 2**self._attempt))
        wait_s = self._wait_ms / 1000 or jittered
        self._attempt, self._wait_ms = min(self._attempt + 1, 10), 0
        return wait_s

    async def _follow(self, socket: ClientConnection) -> None:
        params = {"topics": self._topics, **({"since": self._cursor} if self._cursor else {})}
        await socket.send(encoded(1, "subscribe", msgspec.json.encode(params)))
        while True:
            async with asyncio.timeout(_SILENCE_S):
                message = msgspec.json.decode(await socket.recv(), type=_Message)
            if message.error is not None:
                raise click.ClickException(str(message.error.get("message")))
            if message.method and message.id is not None:  # a call: the service asks whether this end lives
                await socket.send(msgspec.json.encode({"jsonrpc": "2.0", "id": message.id, "result": {}}).decode())
            else:
                self._take(message)

    def _take(self, message: _Message) -> None:
        told = msgspec.json.decode(message.params, type=_Position)
        if message.id == 1:
            self._attempt = 0
            # A replay is still to come when it resumes: then the newest event seen is the place to go on from.
            self._cursor = self._cursor or msgspec.json.decode(message.result, type=_Position).position
        elif message.method == "event":
            self._cursor = told.id or self._cursor
            self._show(bytes(message.params))
        elif message.method == "reset":
            self._cursor = told.position
            self._show(b'{"reset":%s}' % bytes(message.params))
        elif message.method == "heartbeat":
            self._cursor = told.position
        elif message.method == "bye":
            self._wait_ms = told.retry_ms


def opened(url: str, key: str | None) -> connect:
    parts = urlsplit(url)
    address = urlunsplit(("wss" if parts.scheme == "https" else "ws", parts.netloc, "/ws", "", ""))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return connect(
        address, additional_headers=headers, open_timeout=_OPEN_S, ping_interval=None, compression=None,
        max_size=_MESSAGE_BYTES_MAX,
    )  # fmt: skip


def encoded(number: int, method: str, params: bytes) -> str:
    call = b'{"jsonrpc":"2.0","id":%d,"method":%s,"params":%s}' % (number, msgspec.json.encode(method), params)
    return call.decode()


async def call(url: str, key: str | None, method: str, params: bytes, timeout_s: float) -> _Message:
    until_s = monotonic_s() + timeout_s
    async with opened(url, key) as socket:
        await socket.send(encoded(1, method, params))
        while True:
            async with asyncio.timeout(until_s - monotonic_s()):
                message = msgspec.json.decode(await socket.recv(), type=_Message)
            if message.id == 1:
                return message


@click.command()
@click.argument("topics", nargs=-1)
@_url
@_key
@click.option("--since", help="Only what came after this event id.")
def watch(topics: tuple[str, ...], url: str, key: str | None, since: str | None) -> None:
    """Print events as they happen, one JSON object a line; TOPICS are skills and tools unless named."""

    def show(event: bytes) -> None:
        click.echo(event.decode())

    try:
        asyncio.run(Watch(url, key, list(topics) or ["skills", "tools"], since, show).run())
    except KeyboardInterrupt:
        return


@click.command()
@click.argument("method")
@click.argument("params", default="{}")
@_url
@_key
@click.option("--timeout-s", default=60.0, show_default=True, help="How long to wait for the answer.")
def rpc(method: str, params: str, url: str, key: str | None, timeout_s: float) -> None:
    """Call METHOD with PARAMS (a JSON object) and print its result as JSON; `rpc.discover` lists them."""
    try:
        msgspec.json.decode(params, type=dict)
    except msgspec.DecodeError as error:
        raise click.ClickException(f"PARAMS is no JSON object: {error}") from error
    try:
        answer = asyncio.run(call(url, key, method, params.encode(), timeout_s))
    except (OSError, TimeoutError, websockets.WebSocketException) as error:
        raise click.ClickException(f"{url} does not answer as Skillwire does: {error}") from error
    if answer.error is not None:
        raise click.ClickException(msgspec.json.encode(answer.error).decode())
    click.echo(bytes(answer.result).decode())
