import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from services.execution import Sandbox
from tests.support.workers import bounded, job, running_pool, write_package

pytestmark = pytest.mark.anyio

_INSIDE = """
import ctypes, glob, os, resource, socket, subprocess, sys

def connect(arguments):
    answers = {}
    for name, target in arguments["targets"].items():
        try:
            socket.create_connection(tuple(target), 2).close()
            answers[name] = "open"
        except OSError as error:
            answers[name] = type(error).__name__ + " " + str(error.errno)
    try:
        socket.getaddrinfo("example.com", 80)
        answers["dns"] = "open"
    except OSError as error:
        answers["dns"] = type(error).__name__
    try:
        s = socket.socket(socket.AF_UNIX); s.connect(arguments["unix"]); answers["unix"] = "open"
    except OSError as error:
        answers["unix"] = type(error).__name__
    return answers

def write(arguments):
    written = []
    for folder in arguments["folders"]:
        try:
            open(os.path.join(folder, "probe"), "w").close()
            written.append(folder)
        except OSError:
            pass
    return written

def fill(arguments):
    try:
        for n in range(100):
            with open(f"{arguments['folder']}/{n}", "wb") as file:
                file.write(bytes(8 * 1024 * 1024))
    except OSError as error:
        return [n, error.strerror]

def read(arguments):
    seen = {}
    for pattern in arguments["patterns"]:
        for path in glob.glob(pattern):
            try:
                seen[path] = open(path, "rb").read(100_000).decode("latin-1")
            except OSError:
                pass
    return seen

def look(arguments):
    return {
        "environ": dict(os.environ),
        "fds": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                      if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}")),
        "root": sorted(os.listdir("/")),
        "pids": sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()),
        "uid": os.getuid(),
        "path": sys.path,
        "unshare": ctypes.CDLL(None).unshare(0x10000000),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "caps": [line for line in open("/proc/self/status") if line.startswith("CapEff")][0].split()[1],
    }

def raise_limits(arguments):
    raised = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
        try:
            resource.setrlimit(kind, (2**40, 2**40))
            raised.append(kind)
        except (ValueError, OSError):
            pass
    return raised

def forks(arguments):
    children = []
    try:
        for _ in range(400):
            children.append(subprocess.Popen(["sleep", "60"]))
    except OSError as error:
        return error.strerror
    finally:
        for child in children:
            child.kill()
    return len(children)
"""


async def _call(package: Path, function: str, arguments: dict[str, Any] | None = None) -> Any:
    async with running_pool() as pool:
        command = ["python", f"scripts/inside.py:{function}"]
        return (await bounded(pool.call(job(package, command, arguments)))).result


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_package(tmp_path / "package", inside_py=_INSIDE)


async def test_there_is_no_network_not_even_this_machine(package: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "service.sock")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(path)
        local.listen()
        targets = {"service": server.getsockname(), "outside": ("1.1.1.1", 53), "metadata": ("169.254.169.254", 80)}
        answers = await _call(package, "connect", {"targets": targets, "unix": path})
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()
    assert answers == {
        "service": "ConnectionRefusedError 111",
        "outside": "OSError 101",
        "metadata": "OSError 101",
        "dns": "gaierror",
        "unix": "FileNotFoundError",
    }


async def test_only_the_scratch_folders_can_be_written_and_they_are_small(package: Path) -> None:
    closed = ["/", "/skill", "/skill/scripts", "/usr", "/etc", "/dev", "/proc", "/worker.py"]
    scratch = ["/job", "/tmp", "/dev/shm"]
    assert await _call(package, "write", {"folders": closed + scratch}) == scratch
    assert await _call(package, "fill", {"folder": "/job"}) == [4, "No space left on device"]
    assert await _call(package, "fill", {"folder": "/dev/shm"}) == [2, "No space left on device"]
    assert not (package / "probe").exists()


async def test_the_services_environment_and_files_are_not_visible(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLWIRE_ADMIN_KEY", "a-secret-of-the-service")
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-the-service")
    patterns = ["/proc/*/environ", "/proc/*/cmdline", str(secret), "/etc/passwd", "/etc/hosts", str(Path.home() / "*")]
    seen = await _call(package, "read", {"patterns": patterns})
    assert "/proc/1/environ" in seen
    assert not any("a-secret-of-the-service" in text for text in seen.values())
    assert {path for path in seen if not path.startswith("/proc")} == set()


async def test_nothing_else_of_the_service_is_inherited(package: Path, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "open-file", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)
    try:
        seen = await _call(package, "look")
    finally:
        os.close(descriptor)
    targets = [fd.split(":")[0] for fd in seen["fds"] if not fd.startswith("/proc/")]
    assert sorted(targets) == ["/dev/null", "/dev/null", "/dev/null", "socket"]
    assert set(seen["environ"]) <= {"PATH", "HOME", "LANG", "PWD", "MALLOC_ARENA_MAX", "LC_CTYPE"}
    system = {"bin", "dev", "etc", "job", "lib", "lib32", "lib64", "proc", "skill", "tmp", "usr", "worker.py"}
    assert set(seen["root"]) <= system | {Path(sys.base_prefix).parts[1]}
    assert len(seen["pids"]) == 2
    assert seen["uid"] == 65534
    assert int(seen["caps"], 16) == 0
    assert seen["unshare"] == -1
    assert not any("site-packages" in path for path in seen["path"])
    assert (seen["core"], seen["nofile"]) == (0, 64)


async def test_a_tool_cannot_raise_its_limits(package: Path) -> None:
    assert await _call(package, "raise_limits") == []


@pytest.mark.skipif(os.getuid() == 0, reason="the kernel limits no process of uid 0, sandboxed or not")
async def test_a_fork_bomb_meets_the_process_limit(package: Path) -> None:
    assert await _call(package, "forks") == "Resource temporarily unavailable"


async def test_the_probe_names_what_it_found() -> None:
    sandbox = Sandbox()
    assert not sandbox.available
    await sandbox.probe()
    if not sandbox.available:
        pytest.skip(sandbox.reason)
    assert sandbox.name == "bubblewrap"
    assert sandbox.version.split(".")[0].isdigit()
    assert sandbox.reason == ""


async def test_a_missing_binary_is_a_reason_and_no_error(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "absent")
    await sandbox.probe()
    assert not sandbox.available
    assert "could not be run" in sandbox.reason
