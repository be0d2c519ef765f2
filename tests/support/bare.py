"""The floor of a REST benchmark: a Starlette route that answers given bytes, on the same server.

`python -m tests.support.bare PATH FILE` serves the bytes of FILE at PATH and prints its port.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@contextmanager
def bare(path: str, body: bytes, folder: Path) -> Iterator[tuple[int, int]]:
    """A running floor: its pid and port. `folder` is for the file."""
    file = folder / "body.json"
    file.write_bytes(body)
    command = [sys.executable, "-m", "tests.support.bare", path, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


async def serve(path: str, body: bytes) -> None:
    async def answer(_: Request) -> Response:
        return Response(body, media_type="application/json")

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    app = Starlette(routes=[Route(path, answer)])
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, server_header=False)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  # how the parent learns the port
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], Path(sys.argv[2]).read_bytes()))
