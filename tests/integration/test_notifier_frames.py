"""WebSocket frames as no client library would send them: cut anywhere, joined, mixed with control frames, broken."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from websockets.frames import Frame, Opcode

from tests.support.notifier_server import pushing, upgraded

pytestmark = pytest.mark.anyio


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask, extensions=[])


def call(number: int, text: str = "") -> bytes:
    return b'{"jsonrpc":"2.0","id":%d,"method":"echo","params":{"text":"%s"}}' % (number, text.encode())


class Socket:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def next_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of what the server sends next."""
        async with asyncio.timeout(5):
            first, size = await self._reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await self._reader.readexactly(2))
            return first & 0x0F, await self._reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@asynccontextmanager
async def opened(port: int, pipelined: bytes = b"") -> AsyncIterator[Socket]:
    async with upgraded(port) as (reader, writer):
        writer.write(pipelined)
        yield Socket(reader, writer)


async def test_messages_arrive_whole_and_in_order_however_their_bytes_are_cut() -> None:
    rng = random.Random(7)
    async with pushing() as push:
        for _ in range(20):
            texts = ["x" * rng.choice((0, 1, 60, 120, 130, 3000)) for _ in range(12)]
            data = b""
            for number, text in enumerate(texts):
                whole = call(number, text)
                match rng.randrange(5):
                    case 0:
                        cut = rng.randrange(len(whole))
                        data += frame(whole[:cut], fin=False) + frame(b"", Opcode.PING)
                        data += frame(whole[cut:], Opcode.CONT)
                    case 1:
                        data += frame(whole, Opcode.BINARY)
                    case 2:
                        data += frame(b"", Opcode.PONG) + frame(whole)
                    case _:
                        data += frame(whole)
            async with opened(push.port) as socket:
                while data:
                    size = rng.choice((1, 2, 5, 7, 100, 5000))
                    await socket.send(data[:size])
                    if rng.random() < 0.3:
                        await asyncio.sleep(0)
                    data = data[size:]
                answers: list[bytes] = []
                while len(answers) < len(texts):
                    opcode, payload = await socket.next_frame()
                    if opcode == Opcode.TEXT:
                        answers.append(payload)
            assert sorted(answers) == sorted(
                b'{"jsonrpc":"2.0","id":%d,"result":{"text":"%s"}}' % (number, text.encode())
                for number, text in enumerate(texts)
            )


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(call(2), mask=False), 1002),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"x" * 5000), 3509),
        (b"\x81\xff" + (1 << 62).to_bytes(8) + b"1234", 1009),
        (frame(call(2), Opcode.CONT), 1002),
        (frame(call(2)[:9], fin=False) + frame(call(2)), 1002),
        (b"\xc1\x80" + b"1234", 1002),
        (frame((1000).to_bytes(2), Opcode.CLOSE), 1000),
    ],
    ids=["unmasked", "no text", "too large", "far too large", "nothing to go on", "no end", "compressed", "goodbye"],
)
async def test_what_is_no_message_ends_the_connection_behind_what_was_good(broken: bytes, code: int) -> None:
    async with pushing() as push, opened(push.port) as socket:
        await socket.send(frame(call(1)) + broken)
        got: list[tuple[int, bytes]] = []
        while not got or got[-1][0] != Opcode.CLOSE:
            got.append(await socket.next_frame())
        assert got[0] == (Opcode.TEXT, b'{"jsonrpc":"2.0","id":1,"result":{"text":""}}')
        assert int.from_bytes(got[-1][1][:2]) == code


async def test_answers_to_messages_that_come_together_are_all_there_in_order() -> None:
    calls = [call(number, "x" * 3000) for number in range(100)]
    async with pushing() as push, opened(push.port) as socket:
        await socket.send(b"".join(map(frame, calls)))
        answers = [msgspec.json.decode((await socket.next_frame())[1]) for _ in calls]
    assert [answer["id"] for answer in answers] == list(range(100))
    assert {len(answer["result"]["text"]) for answer in answers} == {3000}


async def test_bytes_that_came_before_the_connection_was_handed_over_are_not_lost() -> None:
    whole = frame(call(1))
    async with pushing(reads_first=True) as push:
        for cut in (0, 1, 2, 5, 6, 9, len(whole)):
            async with opened(push.port, frame(call(0)) + whole[:cut]) as socket:
                assert await socket.next_frame() == (1, call(0))
                await socket.send(whole[cut:] + frame(call(2)))
                assert sorted([await socket.next_frame(), await socket.next_frame()]) == [
                    (1, b'{"jsonrpc":"2.0","id":1,"result":{"text":""}}'),
                    (1, b'{"jsonrpc":"2.0","id":2,"result":{"text":""}}'),
                ]
