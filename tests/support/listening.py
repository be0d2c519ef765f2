"""A client of listen streams without a socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Message

from gateway.mcp.streams import Filter, ListenStreams
from gateway.principal import ALL_SCOPES, Principal
from notifier.events import Viewer


def principal(name: str = "all", owners: frozenset[str] | None = None) -> Principal:
    return Principal(name, ALL_SCOPES, Viewer(owners=owners))


class Client:
    """What it was sent, decoded; while `reads` is not set, sending to it waits."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.left = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.body":
            self.parts.append(message["body"])

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def told(self) -> list[str]:
        """`tools`, `resources`, ...: the notices so far, the acknowledgement first."""
        return [message.get("method", "ended").removeprefix("notifications/") for message in self.messages]

    @property
    def messages(self) -> list[dict[str, Any]]:
        frames = b"".join(self.parts).decode().split("\r\n\r\n")
        return [json.loads(frame.partition("data: ")[2]) for frame in frames if frame.startswith("event:")]


@asynccontextmanager
async def listening(
    streams: ListenStreams, wanted: Filter, who: Principal | None = None, client: Client | None = None
) -> AsyncIterator[Client]:
    client = client or Client()
    streams.admit(wanted, who or principal())
    async with asyncio.TaskGroup() as group:
        group.create_task(streams.serve(b"7", wanted, who or principal(), client.receive, client.send))
        await asyncio.sleep(0)
        yield client
        client.left.set()
