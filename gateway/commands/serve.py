"""`skillwire serve`: a replica over HTTP, until it is told to end."""

from typing import Any

import click

from gateway.commands.running import read_settings, run, with_folders
from gateway.server import bind
from gateway.server import serve as serve_http


@click.command()
@click.option("--host", help="Address to listen on; beyond this machine a key is needed. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one. [default: 8080]")
@with_folders
def serve(**options: Any) -> None:
    """Serve MCP, REST, WebSocket RPC, SSE and the dashboard."""
    settings = read_settings(options)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from error
    run(serve_http(settings, listener))
