"""`skillwire stdio`: a replica for the process that started it."""

from typing import Any

import click

from gateway.commands.running import read_settings, run, with_folders
from gateway.stdio import serve_stdio


@click.command()
@with_folders
def stdio(**options: Any) -> None:
    """Speak MCP on stdin and stdout, for clients that start their servers."""
    run(serve_stdio(read_settings(options)))
