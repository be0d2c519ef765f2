"""`skillwire serve` and `skillwire stdio`: a replica, until it is told to end."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import uvloop
from pydantic import ValidationError

from gateway.auth import InsecureSettings
from gateway.logs import set_up_logs
from gateway.server import bind
from gateway.server import serve as serve_http
from gateway.stdio import serve_stdio
from services.failures import ServiceError
from services.settings import Settings

_PATH = click.Path(path_type=Path)


def _with_folders(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--data", "data_dir", type=_PATH, help="Where data is kept. [default: .skillwire]")(command)
    return click.option("--skills", "skills_dir", type=_PATH, help="Folder to watch. [default: skills]")(command)


@click.command()
@click.option("--host", help="Address to listen on; beyond this machine a key is needed. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one. [default: 8080]")
@_with_folders
def serve(**options: Any) -> None:
    """Serve MCP, REST, WebSocket RPC, SSE and the dashboard."""
    settings = read_settings(options)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from error
    _run(serve_http(settings, listener))


@click.command()
@_with_folders
def stdio(**options: Any) -> None:
    """Speak MCP on stdin and stdout, for clients that start their servers."""
    _run(serve_stdio(read_settings(options)))


def read_settings(options: dict[str, Any]) -> Settings:
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise click.ClickException("the settings are not valid: " + "; ".join(lines)) from error
    set_up_logs(settings.log_format, settings.log_level)
    return settings


def _run(service: Coroutine[Any, Any, None]) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(service)
    except (InsecureSettings, ServiceError) as error:
        raise click.ClickException(str(error)) from error
