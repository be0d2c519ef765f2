"""The console command `skillwire`."""

from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple

import click

from gateway.lean import leave_out, share_heap, unbuilt, uncollected

# FastAPI asks whether a model is one of pydantic's old ones, and would judge addresses of mail; structlog
# would print tracebacks with rich, whose local variables are what a caller sent (`gateway/logs.py`).
_NEVER_USED = ("pydantic.v1", "email_validator", "rich")


class _Command(NamedTuple):
    """Where a command is found, and what the list of commands says of it."""

    module: str
    summary: str
    attribute: str = ""
    """Where it is not called as it is typed."""


_COMMANDS = {
    "serve": _Command("gateway.commands.serve", "Serve MCP, REST, WebSocket RPC, SSE and the dashboard."),
    "stdio": _Command("gateway.commands.stdio", "Speak MCP on stdin and stdout."),
    "publish": _Command("gateway.commands.publish", "Publish a package (folder, zip, URL, git) to a running service."),
    "import": _Command("gateway.commands.bulk", "Publish every package of a folder, with a report.", "import_"),
    "migrate": _Command("gateway.commands.migrate", "Bring the database to this version's schema."),
    "audit": _Command("gateway.commands.audit", "Verify the audit log, or write it out."),
    "sweep": _Command("gateway.commands.sweep", "Remove stored files that no version names any more."),
    "watch": _Command("gateway.commands.live", "Print a running service's events as they happen."),
    "rpc": _Command("gateway.commands.live", "Call a command of a running service."),
    "validate": _Command("gateway.commands.validate", "Judge packages, with line numbers and hints."),
    "init-storage": _Command("gateway.commands.storage", "Make the tables and the bucket of STORAGE_BACKEND=s3."),
    "migrate-storage": _Command("gateway.commands.storage", "Copy the catalog from one storage backend to another."),
}


class _Lazy(click.Group):
    """Imports a command's module when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # the base class's shape
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # the same
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name]
        share_heap()
        leave_out(*_NEVER_USED)
        with uncollected(), unbuilt():
            command = getattr(import_module(module), attribute or cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("skillwire"), prog_name="skillwire")
def main() -> None:
    """One live skill server for all of a team's AI agents.

    Settings come from options, then SKILLWIRE_* in the environment, then skillwire.toml.
    """


if __name__ == "__main__":
    main()
