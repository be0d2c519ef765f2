"""The n-th call to a disk or a database fails: alone, or with all after it until `heal`."""

import asyncio
import errno
import fcntl
import io
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

# What `pathlib` and `open` come down to.
_DISK_CALLS = ("open", "mkdir", "utime", "fsync", "replace", "unlink", "stat", "scandir", "listdir")


class Nth:
    """Counts calls while it is armed; safe to ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = 0
        self._persistent = False
        self._count = 0

    def arm(self, at: int, *, persistent: bool) -> None:
        with self._lock:
            self._at, self._persistent, self._count = at, persistent, 0

    def heal(self) -> bool:
        """No call fails from now on; True when one did."""
        with self._lock:
            failed = 0 < self._at <= self._count
            self._at = 0
        return failed

    def fails(self) -> bool:
        """Whether this call is one that fails."""
        with self._lock:
            if not self._at:
                return False
            self._count += 1
            return self._count == self._at or (self._persistent and self._count > self._at)


@contextmanager
def failing_disk(nth: Nth) -> Iterator[None]:
    """Every call of this process to the file system may fail. SQLite's own calls do not come by here."""

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            _fail_if(nth)
            return call(*arguments, **named)

        return called

    def opened(*arguments: Any, **named: Any) -> Any:
        _fail_if(nth)
        file = opens(*arguments, **named)
        return _FailingFile(file, nth) if isinstance(file, io.BufferedWriter) else file

    kept = {name: getattr(os, name) for name in _DISK_CALLS}
    opens, flock = io.open, fcntl.flock
    try:
        for name, call in kept.items():
            setattr(os, name, failing(call))
        io.open, fcntl.flock = opened, failing(flock)
        yield
    finally:
        for name, call in kept.items():
            setattr(os, name, call)
        io.open, fcntl.flock = opens, flock


class _FailingFile:
    """An open file whose writes are half done when they fail."""

    def __init__(self, file: io.BufferedWriter, nth: Nth) -> None:
        self._file = file
        self._nth = nth

    def __enter__(self) -> "_FailingFile":
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def write(self, value: bytes) -> int:
        if self._nth.fails():
            self._file.write(value[: len(value) // 2])
            raise OSError(errno.EIO, "the disk is away")
        return self._file.write(value)

    def flush(self) -> None:
        _fail_if(self._nth)
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


def _fail_if(nth: Nth) -> None:
    if nth.fails():
        raise OSError(errno.EIO, "the disk is away")


def fail_statements(engine: Engine, nth: Nth) -> None:
    """Every statement, BEGIN and COMMIT among them, may fail as it does when the disk is away."""

    def broken() -> None:
        if nth.fails():
            raise sqlite3.OperationalError("disk I/O error")

    @event.listens_for(engine, "do_execute")
    def execute(*_arguments: object) -> None:
        broken()

    @event.listens_for(engine, "do_executemany")
    def execute_many(*_arguments: object) -> None:
        broken()

    @event.listens_for(engine, "do_execute_no_params")
    def execute_bare(*_arguments: object) -> None:
        broken()

    @event.listens_for(engine, "commit")
    def commit(_connection: object) -> None:
        # As SQLAlchemy says it of the driver's error; it does not look at what a listener raises here.
        try:
            broken()
        except sqlite3.OperationalError as error:
            raise OperationalError("COMMIT", None, error) from error


class CuttingProxy:
    """Before a unix socket: the n-th piece that comes by, either way, is lost with its connection, and while
    calls fail nobody gets through. `lose_answers` leaves what goes to the server alone."""

    def __init__(self, target: Path, nth: Nth, *, lose_answers: bool) -> None:
        self._target = target
        self._nth = nth
        self._lose_answers = lose_answers
        self._ways: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
        ways = [
            asyncio.create_task(self._copy(reader, there_writer, may_fail=not self._lose_answers)),
            asyncio.create_task(self._copy(there_reader, writer, may_fail=True)),
        ]
        self._ways.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            self._ways.difference_update(ways)
            self._open.discard(task)
            writer.close()
            there_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_fail: bool) -> None:
        while data := await reader.read(1 << 20):
            if may_fail and self._nth.fails():
                return
            writer.write(data)
            await writer.drain()

    async def close(self) -> None:
        for way in self._ways:  # their connection's task ends with them; cancelled itself, it would be logged
            way.cancel()
        if self._open:
            await asyncio.wait(self._open)


@asynccontextmanager
async def cutting_proxy(target: Path, at: Path, nth: Nth, *, lose_answers: bool) -> AsyncIterator[None]:
    proxy = CuttingProxy(target, nth, lose_answers=lose_answers)
    server = await asyncio.start_unix_server(proxy.serve, at)
    try:
        yield
    finally:
        server.close()
        await proxy.close()
