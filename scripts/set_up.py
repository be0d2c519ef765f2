"""Brings `.venv` in line with the lock files: `python3 scripts/set_up.py run|dev|bench`.

`run` is what the service imports, `dev` adds what the checks need, `bench` what the benchmarks
compare with. Each contains the one before, so a virtual environment made for the checks also
serves. Every download is checked against the hashes of a lock. A stamp in `.venv` holds a digest
of all that went into it; while it fits, nothing is started and the call costs a few milliseconds.

Standard library only, and no newer syntax than an old Python can read up to the version check.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
BOOTSTRAP = "bootstrap.lock"
LOCKS = {"run": "requirements.lock", "dev": "requirements-dev.lock", "bench": "requirements-bench.lock"}
PYTHON_MIN = (3, 11)


def fingerprint(name: str) -> str:
    """Digest of what `.venv` must hold for the set `name`.

    The path is part of it because the console scripts of a virtual environment carry it: a
    clone that was moved needs a new one. `pyproject.toml` is, because it names the command.
    """
    digest = hashlib.sha256(f"{name}\n{ROOT}\n{sys.version_info[:2]}\n".encode())
    for file in (BOOTSTRAP, LOCKS[name], "pyproject.toml"):
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()


def is_current(name: str) -> bool:
    if not (STAMP.is_file() and (VENV / "bin" / "python").exists()):
        return False
    names = list(LOCKS)
    return STAMP.read_text().strip() in {fingerprint(larger) for larger in names[names.index(name) :]}


def is_usable() -> bool:
    """True when `.venv` was made at this path by this minor version of Python and is whole."""
    config = VENV / "pyvenv.cfg"
    if not (config.is_file() and (VENV / "bin" / "python").exists()):
        return False
    lines = [line.partition(" = ") for line in config.read_text().splitlines()]
    values = {key: value for key, _, value in lines}
    minor = ".".join(map(str, sys.version_info[:2]))
    was_made_here = values.get("command", "").endswith(f" {VENV}")
    return was_made_here and values.get("version", "").startswith(f"{minor}.")


def announce(text: str) -> None:
    sys.stderr.write(f"==> {text}\n")


def pip(*arguments: str) -> None:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def install_locked(lock: str) -> None:
    """Makes the packages of `.venv` those of `lock` and of the bootstrap lock, and no others.

    uv does it in a tenth of pip's time, but reads neither pip's configuration nor the
    system's certificates; a machine that reaches its index through those gets pip, which
    leaves packages that are no longer locked where they are.
    """
    uv = [str(VENV / "bin" / "uv"), "--quiet", "pip", "sync", "--require-hashes", "--python", str(VENV / "bin/python")]
    done = subprocess.run([*uv, BOOTSTRAP, lock], cwd=ROOT, check=False)
    if done.returncode:
        announce("uv could not install the set; using pip, which takes about half a minute")
        pip("install", "--require-hashes", "-r", BOOTSTRAP, "-r", lock)


def create() -> None:
    announce(f"creating .venv with Python {sys.version.split()[0]}")
    # --clear: the console scripts of a moved clone, or of another Python, carry wrong paths
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)


def set_up(name: str) -> None:
    """The stamp goes first and comes back last, so an interrupted call is repeated in full."""
    STAMP.unlink(missing_ok=True)
    if not is_usable():
        create()
    announce(f"installing {LOCKS[name]}, checked against its hashes")
    pip("install", "--require-hashes", "-r", BOOTSTRAP)
    install_locked(LOCKS[name])
    # The build backend is part of the bootstrap lock, so this step needs no network. The
    # project is installed for its console command and its metadata; the code stays here.
    pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", ".")
    STAMP.write_text(fingerprint(name) + "\n")


def main() -> int:
    if sys.version_info < PYTHON_MIN:
        announce("Skillwire needs Python 3.11 or newer; name one, e.g. `make run PYTHON=python3.12`")
        return 1
    name = sys.argv[1]
    if is_current(name):
        return 0
    # Two makes at once in one clone: the second waits, then finds the work done. The lock is
    # on the folder itself because .venv may not exist yet, and ends with this process.
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)
    if is_current(name):
        return 0
    try:
        set_up(name)
    except subprocess.CalledProcessError as failure:
        announce(f"failed: {' '.join(failure.cmd)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
