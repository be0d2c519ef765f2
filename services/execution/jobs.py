"""What is asked of a worker and what comes back."""

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from services.execution.dialogue import Dialogue
from services.failures import Invalid
from services.models import ToolSpec

_PYTHON = ("python", "python3")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Command(NamedTuple):
    """A tool's command, taken apart. `function` is None for one process per call, with `argv`."""

    script: str
    function: str | None
    argv: tuple[str, ...]


class Job(msgspec.Struct, frozen=True):
    """One call. `package_dir` holds the files that `digest` names; `timeout_s` is the time a
    worker may take, loading included and waiting for a worker not."""

    package_dir: Path
    digest: str
    tool: ToolSpec
    arguments: dict[str, Any]
    tenant: str
    timeout_s: float
    dialogue: Dialogue | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a tool answered. `warm` is True when its worker was already loaded; `worker_pid` is
    the sandbox's process on this machine; `duration_ms` is the whole call, waiting included."""

    result: Any
    logs: str
    worker_pid: int
    warm: bool
    duration_ms: float


def parse_command(command: list[str]) -> Command:
    """Raises `Invalid` for a command that does not name a script inside its package."""
    return _parse(tuple(command))


@functools.lru_cache(maxsize=1024)
def _parse(command: tuple[str, ...]) -> Command:
    if len(command) < 2:
        raise Invalid("a command names a program and a script of the package", code="bad_command")
    program, target = command[0], command[1]
    if not _PROGRAM.fullmatch(program):
        raise Invalid(f"{program!r} is not the plain name of a program", code="bad_command")
    script, function = target, None
    if program in _PYTHON and ":" in target and len(command) == 2:
        script, _, function = target.partition(":")
        if not function.isidentifier():
            raise Invalid(f"{function!r} is not the name of a function", code="bad_command")
    parts = script.split("/")
    if script.startswith(("/", "-")) or "\\" in script or any(part in ("", ".", "..") for part in parts):
        raise Invalid(f"{script!r} is not a path inside the package", code="bad_command")
    return Command(script, function, command)
