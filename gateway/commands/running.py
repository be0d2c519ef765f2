"""What commands that open a replica share: its folders and settings, and the loop it runs in."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from pydantic import ValidationError

from gateway.auth import InsecureSettings
from gateway.logs import set_up_logs
from services.failures import ServiceError
from services.settings import Settings

T = TypeVar("T")

_PATH = click.Path(path_type=Path)


def with_folders(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--data", "data_dir", type=_PATH, help="Where data is kept. [default: .skillwire]")(command)
    return click.option("--skills", "skills_dir", type=_PATH, help="Folder to watch. [default: skills]")(command)


def read_settings(options: dict[str, Any]) -> Settings:
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise click.ClickException("the settings are not valid: " + "; ".join(lines)) from error
    set_up_logs(settings.log_format, settings.log_level)
    return settings


def run(work: Coroutine[Any, Any, T]) -> T:
    """What it answers; a failure of ours is told without a traceback."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except (InsecureSettings, ServiceError) as error:
        raise click.ClickException(str(error)) from error
