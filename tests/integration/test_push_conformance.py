"""The wire formats judged by programs of others: the Autobahn cases, the npm EventSource, nginx with gzip."""

import asyncio
import json
import os
import shutil
import socket
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from notifier.events import websocket_frame
from notifier.raw import RAW, RawHttpProtocol, RawWebSocketProtocol
from tests.support.notifier_log import announce
from tests.support.notifier_server import pushing

pytestmark = pytest.mark.anyio

# 9 measures speed, 12 and 13 need permessage-deflate.
CASES = [f"{number}.*" for number in (1, 2, 3, 4, 5, 6, 7, 10)]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
NODE = Path(__file__).parents[1] / "bench" / "push" / "node"


class Echo:
    """What the cases expect of a server, over the protocol class that streams are served by."""

    wire: RawWebSocketProtocol

    def begin(self, wire: RawWebSocketProtocol) -> None:
        self.wire = wire

    def receive(self, message: bytes) -> None:
        frame = websocket_frame(message)
        self.wire.write(frame if self.wire.curr_msg_data_type == "text" else b"\x82" + frame[1:])

    def paused(self) -> None:
        self.wire.hold_reading()

    def resumed(self) -> None:
        self.wire.go_on_reading()

    def lost(self) -> None:
        """Nothing is kept."""


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    scope["extensions"][RAW].take_over(Echo())


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        echo, lifespan="off", log_config=None, ws_per_message_deflate=False, ws_ping_interval=None,
        http=RawHttpProtocol, ws=RawWebSocketProtocol, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


def judged(folder: Path, output: bytes) -> list[dict[str, dict[str, str]]]:
    reports = list(folder.rglob("index.json"))
    assert reports, output.decode()
    return list(json.loads(reports[0].read_text()).values())


@pytest.mark.timeout(300)
async def test_the_autobahn_cases(tmp_path: Path) -> None:
    """https://github.com/crossbario/autobahn-testsuite, cases 1 to 7 and 10."""
    program = Path(sys.executable).with_name("kosoku")
    async with echoing() as port:
        run = await asyncio.create_subprocess_exec(
            program, "-m", "fuzzingclient", "-p", "2", *[word for case in CASES for word in ("-i", case)],
            f"127.0.0.1:{port}", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await run.communicate()
    [cases] = judged(tmp_path, output)
    failed = {name: case for name, case in cases.items() if not {case["behavior"], case["behaviorClose"]} <= GOOD}
    assert len(cases) > 230
    assert not failed


EVENTSOURCE = """
import { EventSource } from "eventsource";
const source = new EventSource(process.argv[2]);
let opened = 0;
source.addEventListener("open", () => process.stdout.write(`open ${++opened}\\n`));
source.addEventListener("bye", (event) => process.stdout.write(`bye ${event.data}\\n`));
source.addEventListener("message", (event) =>
  process.stdout.write(`event ${event.lastEventId} ${JSON.parse(event.data).id}\\n`));
"""


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "asgi"])
async def test_the_event_source_of_npm_reads_and_resumes(raw: bool) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if not (NODE / "node_modules").is_dir():
        installing = await asyncio.create_subprocess_exec(
            "npm", "ci", "--no-audit", "--no-fund", cwd=NODE, stdout=asyncio.subprocess.DEVNULL
        )
        assert await installing.wait() == 0
    async with pushing(raw=raw) as push:
        client = await asyncio.create_subprocess_exec(
            "node", "--input-type=module", "--eval", EVENTSOURCE, "",
            f"http://127.0.0.1:{push.port}/events?topics=skills", cwd=NODE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert await said(client) == "open 1"
            [row] = announce(push.log, push.notifier)
            assert await said(client) == f"event {row.id} {row.id}"
            # The stream breaks, and two events are committed before the client is back.
            for connection in tuple(push.server.server_state.connections):
                connection.transport.abort()
            missed = announce(push.log, push.notifier, 2)
            assert await said(client) == "open 2"
            assert [await said(client) for _ in missed] == [f"event {each.id} {each.id}" for each in missed]
        finally:
            client.kill()
            await client.wait()


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    gzip on; gzip_types text/event-stream; gzip_min_length 0;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}
}}
"""


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "asgi"])
async def test_nginx_with_gzip_holds_no_event_back(tmp_path: Path, raw: bool) -> None:
    program = os.environ.get("NGINX") or shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with pushing(raw=raw) as push:
        (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port, upstream=push.port))
        nginx = await asyncio.create_subprocess_exec(program, "-p", tmp_path, "-c", tmp_path / "nginx.conf")
        try:
            async with asyncio.timeout(30):
                reader, writer = await until_open(port)
                writer.write(b"GET /events?topics=skills HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"content-encoding: gzip" in head.lower()
                unzip = zlib.decompressobj(wbits=31)
                text = b""
                for row in (None, *announce(push.log, push.notifier)):
                    expected = b"event: hello" if row is None else row.id.encode()
                    while expected not in text:
                        size = int(await reader.readuntil(b"\r\n"), 16)
                        text += unzip.decompress((await reader.readexactly(size + 2))[:-2])
                writer.close()
        finally:
            nginx.terminate()
            await nginx.wait()


async def until_open(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
