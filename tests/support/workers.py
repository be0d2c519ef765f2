"""Real worker pools in the real sandbox, and packages to run in them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from services.execution import Job, Sandbox, WorkerPool
from services.models import ToolSpec

WAIT_S = 5.0
T = TypeVar("T")

# One script for most tests: every function is a tool of its own.
PROBES = """
import os, signal, socket, subprocess, sys, time

LOADED = []
LOADED.append(1)

def echo(arguments):
    return arguments

def whoami(arguments):
    return {"pid": os.getpid(), "loads": len(LOADED)}

def shout(arguments):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"below python")
    os.write(2, b"below python")
    sys.stdout.buffer.write(b"bytes\\n")
    subprocess.run(["sh", "-c", "echo from a child"])
    return "said"

def flood(arguments):
    for _ in range(arguments["lines"]):
        print("x" * 1023)
    return "flooded"

def fail(arguments):
    print("before")
    raise ValueError("no such luck")

def leave(arguments):
    sys.exit(3)

def crash(arguments):
    if arguments.get("crash", True):
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"

def hang(arguments):
    subprocess.Popen(["sleep", "600"])
    while True:
        pass

def nap(arguments):
    time.sleep(arguments["s"])
    return arguments.get("mark")

def bomb(arguments):
    return len(bytearray(900 * 1024 * 1024))

def big(arguments):
    return "x" * arguments["n"]

def not_json(arguments):
    return {"nan": float("nan")} if arguments.get("nan") else object()

def forge(arguments):
    for fd in os.listdir("/proc/self/fd"):
        try:
            s = socket.socket(fileno=int(fd))
            s.sendall((2).to_bytes(4, "big") + b"{}")
        except OSError:
            pass
    return 1

def litter(arguments):
    seen = os.listdir("/job") + os.listdir("/tmp")
    open("/job/left", "w").write("secret")
    os.makedirs("/tmp/folder/in")
    return seen
"""


@asynccontextmanager
async def running_pool(*, workers_max: int = 2, queue_max: int = 64, **options: Any) -> AsyncIterator[WorkerPool]:
    """Skips, with the sandbox's own reason, where no sandbox holds."""
    sandbox = Sandbox()
    await sandbox.probe()
    if not sandbox.available:
        pytest.skip(sandbox.reason)
    pool = WorkerPool(sandbox, workers_max=workers_max, queue_max=queue_max, **options)
    try:
        yield pool
    finally:
        await pool.close()


def write_package(folder: Path, **scripts: str) -> Path:
    """A package whose `scripts/<name>` hold the given texts; `_` stands for the dot in a name."""
    (folder / "scripts").mkdir(parents=True)
    for name, text in ({"probes_py": PROBES} | scripts).items():
        stem, _, suffix = name.rpartition("_")
        (folder / "scripts" / f"{stem}.{suffix}").write_text(text)
    return folder


def tool(command: str | list[str], **fields: Any) -> ToolSpec:
    """A tool; a plain word names a function of `PROBES`."""
    argv = ["python", f"scripts/probes.py:{command}"] if isinstance(command, str) else command
    return ToolSpec(name="probe", description="", input_schema={"type": "object"}, command=argv, **fields)


def job(
    package: Path,
    command: str | list[str],
    arguments: dict[str, Any] | None = None,
    *,
    tenant: str = "a",
    timeout_s: float = 10.0,
    **fields: Any,
) -> Job:
    return Job(package, str(package), tool(command, **fields), arguments or {}, tenant, timeout_s)


async def bounded(work: Awaitable[T]) -> T:
    async with asyncio.timeout(WAIT_S):
        return await work


async def until(claim: Callable[[], bool]) -> None:
    """Returns once `claim` holds; what it asks about lies outside the event loop."""
    async with asyncio.timeout(WAIT_S):
        while not claim():  # noqa: ASYNC110 - processes end without telling this loop
            await asyncio.sleep(0.005)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for at in found:
        try:
            children = Path(f"/proc/{at}/task/{at}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def processes_naming(package: Path) -> list[int]:
    """Every process whose command line names the package: sandboxes, wherever their parent is."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if str(package).encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
