"""Requests answered when they have been read, over real sockets: what is answered so, and that all else is as ever."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from notifier.eager import EagerTask
from notifier.metrics import at_once_failures
from notifier.raw import AtOnce, RawHttpProtocol, Whole

pytestmark = pytest.mark.anyio

HEAD = "Host: x\r\n"


def hot(scope: Scope, body: bytes) -> Whole | None:
    """Answers what is below /hot."""
    if not scope["path"].startswith("/hot"):
        return None
    text = b"hot " + scope["path"].encode() + b" " + body
    return Whole(200, b"content-length: %d\r\nx-by: lane\r\n" % len(text), text)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["begun"].set()
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    text = b"app " + scope["path"].encode() + b" " + body
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def served(
    at_once: AtOnce = hot, begun: asyncio.Event | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """One connection to a server of its own; `begun` is set when the application is called."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"begun": begun or asyncio.Event()}
        await app(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(told, http=RawHttpProtocol.answering(at_once), lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        try:
            async with asyncio.timeout(5):
                yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


async def answer(reader: asyncio.StreamReader) -> tuple[dict[str, str], str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert head[0] == "HTTP/1.1 200 OK"
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    return headers, (await reader.readexactly(int(headers["content-length"]))).decode()


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\n{HEAD}{more}\r\n".encode()


async def test_a_request_is_answered_with_the_servers_own_headers_and_the_connection_goes_on() -> None:
    async with served() as (reader, writer):
        for path in ("/hot/1", "/cold", "/hot/2"):
            writer.write(get(path))
            headers, text = await answer(reader)
            by_lane = path != "/cold"
            assert text == f"{'hot' if by_lane else 'app'} {path} "
            assert {"date", "server"} <= set(headers)
            assert headers.get("x-by") == ("lane" if by_lane else None)


async def test_a_body_that_came_whole_is_given_and_one_still_on_its_way_is_the_applications() -> None:
    head = f"POST /hot HTTP/1.1\r\n{HEAD}Content-Length: 4\r\n\r\n".encode()
    begun = asyncio.Event()
    async with served(hot, begun) as (reader, writer):
        writer.write(head + b"body")
        assert (await answer(reader))[1] == "hot /hot body"
        writer.write(head + b"bo")
        await begun.wait()
        writer.write(b"dy")
        assert (await answer(reader))[1] == "app /hot body"


async def test_pipelined_requests_are_answered_in_their_order_whoever_answers() -> None:
    paths = ["/hot/1", "/cold/2", "/hot/3", "/hot/4", "/cold/5"]
    async with served() as (reader, writer):
        writer.write(b"".join(map(get, paths)))
        assert [(await answer(reader))[1].split()[1] for _ in paths] == paths


async def test_many_pipelined_requests_do_not_pile_up_answers_for_a_client_that_does_not_read() -> None:
    """Each would be a write of its own kind, with nothing that waits for the client."""
    asked: list[str] = []

    def big(scope: Scope, _: bytes) -> Whole:
        asked.append(scope["path"])
        return Whole(200, b"content-length: 1000000\r\n", bytes(1_000_000))

    async with served(big) as (reader, writer):
        writer.write(get("/cold") * 500)
        for _ in range(500):
            await answer(reader)
    assert len(asked) <= 10, "only a request that came alone is answered at once"


@pytest.mark.parametrize(
    "request_", [get("/hot", "Connection: close\r\n"), f"GET /hot HTTP/1.0\r\n{HEAD}\r\n".encode()]
)
async def test_a_connection_that_is_to_end_is_ended_by_the_server(request_: bytes) -> None:
    async with served() as (reader, writer):
        writer.write(request_)
        assert (await reader.read()).endswith(b"app /hot ")


async def test_a_client_that_waits_for_leave_to_send_its_body_is_given_it() -> None:
    async with served() as (reader, writer):
        writer.write(f"POST /hot HTTP/1.1\r\n{HEAD}Content-Length: 4\r\nExpect: 100-continue\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert (await answer(reader))[1] == "app /hot body"


async def test_a_failure_is_counted_and_the_application_answers() -> None:
    def broken(_scope: Scope, _body: bytes) -> Any:
        raise RuntimeError("at once")

    def counted() -> float:
        [family] = at_once_failures.collect()
        return family.samples[0].value

    before = counted()
    async with served(broken) as (reader, writer):
        writer.write(get("/hot"))
        assert (await answer(reader))[1] == "app /hot "
    assert counted() == before + 1


def working(on: asyncio.Event, started: asyncio.Event) -> AtOnce:
    """Takes everything on, and has it done when `on` is set."""

    async def work(body: bytes) -> Whole:
        assert isinstance(asyncio.current_task(), EagerTask), "it began in the callback that read the request"
        started.set()
        await on.wait()
        text = b"done " + body
        return Whole(200, b"content-length: %d\r\nx-by: lane\r\n" % len(text), text)

    return lambda _, body: work(body)


POST = f"POST /work HTTP/1.1\r\n{HEAD}Content-Length: 1\r\n\r\n".encode()


async def test_work_that_waits_for_nothing_is_answered_without_a_task_of_the_server() -> None:
    on, begun = asyncio.Event(), asyncio.Event()
    on.set()
    async with served(working(on, asyncio.Event()), begun) as (reader, writer):
        for number in b"12":
            writer.write(POST + bytes([number]))
            headers, text = await answer(reader)
            assert (text, headers["x-by"]) == (f"done {number:c}", "lane")
    assert not begun.is_set(), "the application saw it"


async def test_work_that_waits_is_done_once_and_what_is_asked_behind_it_is_answered_behind_it() -> None:
    on, started = asyncio.Event(), asyncio.Event()
    async with served(working(on, started)) as (reader, writer):
        writer.write(POST + b"1")
        await started.wait()
        writer.write(get("/cold"))
        on.set()
        headers, text = await answer(reader)
        assert (text, headers["x-by"]) == ("done 1", "lane")
        assert (await answer(reader))[1] == "app /cold "
        writer.write(POST + b"2")
        assert (await answer(reader))[1] == "done 2"


async def test_a_client_that_leaves_while_work_waits_is_let_go() -> None:
    on, started, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> Whole:
        started.set()
        await on.wait()
        ended.set()
        return Whole(200, b"content-length: 0\r\n", b"")

    async with served(lambda _, __: work()) as (_, writer):
        writer.write(POST + b"1")
        await started.wait()
        writer.transport.abort()
        on.set()
        await ended.wait()


async def test_work_that_fails_was_begun_and_is_not_begun_again() -> None:
    times: list[bytes] = []

    async def work(body: bytes) -> Whole:
        times.append(body)
        raise RuntimeError("in the middle")

    async with served(lambda _, body: work(body)) as (reader, writer):
        writer.write(POST + b"1")
        assert (await reader.readline()).startswith(b"HTTP/1.1 500 ")
    assert times == [b"1"]


async def test_what_is_no_request_is_refused_as_ever() -> None:
    async with served() as (reader, writer):
        writer.write(get("/hot"))
        assert (await answer(reader))[1] == "hot /hot "
        writer.write(b"nothing\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
