"""Clients of every push transport, listening, for tests that change something and see who is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import websockets
from mcp.client import Client
from mcp.shared.subscriptions import ServerEvent

WAIT_S = 5.0


class Inbox:
    """What a listener was sent, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        self._queue.put_nowait(item)

    def clear(self) -> None:
        """Forgets what has come so far."""
        while not self._queue.empty():
            self._queue.get_nowait()

    async def next(self, wanted: Any = lambda _: True, wait_s: float = WAIT_S) -> Any:
        """The next item for which `wanted` holds; those before it are passed over."""
        async with asyncio.timeout(wait_s):
            while True:
                item = await self._queue.get()
                if wanted(item):
                    return item


async def eventually(holds: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer of `holds`, for what has no event to wait on. At most `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not (answer := await holds()):  # noqa: ASYNC110  # nothing announces this
            await asyncio.sleep(0.02)
    return answer


@asynccontextmanager
async def sse(url: str, topics: str = "skills,tools", since: str = "") -> AsyncIterator[Inbox]:
    """Events of `/events` as decoded JSON; opened once `hello` has come."""
    headers = {"last-event-id": since} if since else {}
    async with (
        httpx2.AsyncClient(timeout=httpx2.Timeout(WAIT_S, read=None)) as client,
        client.stream("GET", f"{url}/events", params={"topics": topics}, headers=headers) as answer,
        asyncio.TaskGroup() as group,
    ):
        assert answer.status_code == 200, await answer.aread()
        inbox, ready = Inbox(), asyncio.Event()

        async def read() -> None:
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    fields[name] = value
                    continue
                if fields.get("event") == "hello":
                    ready.set()
                elif "event" not in fields and "data" in fields:
                    inbox.put(json.loads(fields["data"]))
                fields = {}

        reader = group.create_task(read())
        async with asyncio.timeout(WAIT_S):
            await ready.wait()
        yield inbox
        reader.cancel()


@asynccontextmanager
async def ws(url: str, since: str = "") -> AsyncIterator[Inbox]:
    """Events of a WebSocket subscription, opened once it is acknowledged."""
    async with websockets.connect(f"{url.replace('http', 'ws', 1)}/ws") as socket, asyncio.TaskGroup() as group:
        params: dict[str, Any] = {"topics": ["skills", "tools"]}
        if since:
            params["since"] = since
        request = {"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params}
        await socket.send(json.dumps(request))
        answer = json.loads(await asyncio.wait_for(socket.recv(), WAIT_S))
        assert "result" in answer, answer
        inbox = Inbox()

        async def read() -> None:
            async for text in socket:
                message = json.loads(text)
                if message.get("method") == "event":
                    inbox.put(message["params"])

        reader = group.create_task(read())
        yield inbox
        reader.cancel()


@asynccontextmanager
async def mcp_modern(url: str) -> AsyncIterator[tuple[Client, Inbox]]:
    """A 2026-07-28 client with an open `subscriptions/listen`."""
    async with Client(f"{url}/mcp", mode="auto") as client, asyncio.TaskGroup() as group:
        inbox = Inbox()
        async with client.listen(tools_list_changed=True, resources_list_changed=True) as subscription:

            async def read() -> None:
                event: ServerEvent
                async for event in subscription:
                    inbox.put(type(event).__name__)

            reader = group.create_task(read())
            yield client, inbox
            reader.cancel()


@asynccontextmanager
async def mcp_legacy(url: str) -> AsyncIterator[tuple[Client, Inbox]]:
    """A client of 2025-11-25 that hears `list_changed` on its session."""
    inbox = Inbox()

    async def on_message(message: Any) -> None:
        if not isinstance(message, Exception):
            inbox.put(type(getattr(message, "root", message)).__name__)

    async with Client(f"{url}/mcp", mode="legacy", message_handler=on_message) as client:
        yield client, inbox
