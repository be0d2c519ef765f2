"""SQLite for the SQL store.

WAL mode with `synchronous=FULL`: a commit that was answered survives a power cut. Writes are
`BEGIN IMMEDIATE`, one at a time in this process and, by SQLite's own lock, one at a time among
all replicas of the machine; reads never wait for them. A plan is read for, made and written
under that lock, so what it assumes cannot change meanwhile.

A plan's transaction runs on a thread of its own from its first statement to its commit, and a look at
the log on another. Through the asynchronous driver every statement goes there and back three times,
some forty hops a publish, which on a busy machine take longer than the disk does.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy import Row as SqlRow
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio.engine import AsyncConnection, create_async_engine

from services.clock import monotonic_s
from services.failures import Full, Unavailable
from services.storage import schema
from services.storage.database import KEYS_MAX, Answer, PlanFor, counted, found_schema, prepare_tables, replacing
from services.storage.plan import NAMESPACE, Row, WritePlan

T = TypeVar("T")

# How long a writer waits for another replica's write before it gives up.
_LOCK_WAIT_MS = 5000
_LOCK_PAUSE_S = 0.01
# The second is said of the index of the log, the file `-shm`, when it cannot grow.
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_READ_CACHE_KB = 256


class SqliteDatabase:
    """A file on a local disk."""

    clock_s: ColumnElement[float] = literal_column("(julianday('now') - 2440587.5) * 86400.0")
    shared = False

    def __init__(self, url: URL) -> None:
        """Makes the folder of the file. Raises `Unavailable`."""
        self._path = Path(str(url.database))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the folder of the database cannot be made: {error}") from error
        async_url = url.set(drivername="sqlite+aiosqlite")
        self.reads = create_async_engine(async_url, pool_size=4)
        self.writes = create_async_engine(async_url, pool_size=1, max_overflow=0)
        # A single statement has a snapshot of its own: neither a BEGIN before it nor a ROLLBACK after.
        self._looks = _engine_of_a_thread(url, pool_reset_on_return=None)
        self.plans = _engine_of_a_thread(url)
        self.engines = (self.reads.sync_engine, self.writes.sync_engine, self._looks, self.plans)
        for engine in self.engines:
            _set_up(engine)
        _read_through(self.reads.sync_engine)
        _begin_with(self.reads.sync_engine, "BEGIN")
        for engine in (self.writes.sync_engine, self.plans):
            _begin_with(engine, "BEGIN IMMEDIATE")
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="sqlite plans")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="sqlite looks")
        self._writer = asyncio.Lock()

    async def prepare(self, migrate: bool = False) -> str:  # noqa: ARG002  # the file is ours: always
        try:
            await asyncio.to_thread(_write_ahead, self._path)
        except sqlite3.DatabaseError as error:
            raise _trouble(error) from error
        async with self.writing() as connection:
            return await prepare_tables(connection, self.insert, migrate=True)

    async def found_schema(self) -> int | None:
        if not await asyncio.to_thread(self._path.exists):
            return None  # connecting would make it
        async with self.reading() as connection:
            return await found_schema(connection)

    def insert(self, table: Table) -> Any:
        return sqlite_insert(table)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        with _answering():
            async with self.reads.connect() as connection:
                yield connection

    async def look(self, statement: Executable, **parameters: Any) -> Sequence[SqlRow[Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._looker, self._looked, statement, parameters)

    def _looked(self, statement: Executable, parameters: dict[str, Any]) -> Sequence[SqlRow[Any]]:
        with _answering(), self._looks.connect() as connection:
            return connection.execute(statement, parameters).all()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the write lock from its start; committed when the block ends well."""
        with _answering():
            async with self._writer, self.writes.begin() as connection:
                yield connection

    async def commit(self, plan_for: PlanFor[Answer]) -> Answer:
        return await self._planned(lambda: self._committed(plan_for))

    async def _planned(self, commit: Callable[[], T]) -> T:
        """A transaction on the plans' own thread."""
        async with self._writer:
            committing = asyncio.get_running_loop().run_in_executor(self._planner, commit)
            try:
                return await asyncio.shield(committing)
            except asyncio.CancelledError:
                # It may be committed by now; the lock is not given on while that is open.
                await asyncio.wait([committing])
                raise

    def _committed(self, plan_for: PlanFor[Answer]) -> Answer:
        async def transaction(connection: AsyncConnection) -> Answer:
            plan, answer = await plan_for(connection)
            await _write(connection, plan)
            return answer

        with _answering(), self.plans.begin() as connection:
            return _run(transaction(cast(AsyncConnection, _AtOnce(connection))))

    async def record(self, rows: Sequence[Row]) -> None:
        await self._planned(lambda: self._recorded(rows))

    def _recorded(self, rows: Sequence[Row]) -> None:
        table = schema.invocations
        # Nobody adds one between the look and the write.
        with _answering(), self.plans.begin() as connection:
            there: set[str] = set()
            for start in range(0, len(rows), KEYS_MAX):
                ids = [row["id"] for row in rows[start : start + KEYS_MAX]]
                there.update(connection.scalars(select(table.c.id).where(table.c.id.in_(ids))))
            new = [row for row in rows if row["id"] not in there]
            if new:
                connection.execute(insert(table), new)
                connection.execute(_counting(), counted(new))

    async def close(self) -> None:
        async with self._writer:
            await asyncio.to_thread(self._planner.shutdown)
            self.plans.dispose()
            await self.writes.dispose()
        await asyncio.to_thread(self._looker.shutdown)
        self._looks.dispose()
        await self.reads.dispose()


class _AtOnce:
    """What a plan uses of an `AsyncConnection`; every call is done when it returns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalar(statement, parameters)

    async def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalars(statement, parameters)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing but an `_AtOnce`, and therefore never pauses."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    work.close()
    raise AssertionError("a plan awaits its connection alone")


@cache
def _replacing(table: Table) -> Any:
    return replacing(sqlite_insert(table), table)


@cache
def _counting() -> Any:
    usage = schema.usage
    adding = sqlite_insert(usage)
    return adding.on_conflict_do_update(
        index_elements=["skill_id", "version"],
        set_={
            "calls": usage.c.calls + adding.excluded.calls,
            "failures": usage.c.failures + adding.excluded.failures,
            "last_at": func.max(usage.c.last_at, adding.excluded.last_at),
        },
    )


async def _write(connection: AsyncConnection, plan: WritePlan) -> None:
    """The plan's rows and, last, the counter."""
    for table, rows in (
        (schema.changes, plan.changes),
        (schema.versions, plan.versions),
        (schema.solutions, plan.solutions),
    ):
        if rows:
            await connection.execute(insert(table), rows)
    for table, rows in (
        (schema.skills, [*plan.skills.values()]),
        (schema.ledger, [*plan.ledger.values()]),
        (schema.streams, plan.stream_rows()),
        (schema.runs, [*plan.runs.values()]),
        (schema.documents, [*plan.documents.values()]),
    ):
        if rows:
            await connection.execute(_replacing(table), rows)
    if plan.levels:
        table = schema.incidents
        await connection.execute(
            update(table).where(table.c.id == bindparam("incident")).values(level=bindparam("mark")),
            [{"incident": incident, "mark": level} for incident, level in plan.levels.items()],
        )
    for skill_id, number in plan.pruned:
        table = schema.versions
        await connection.execute(delete(table).where((table.c.skill_id == skill_id) & (table.c.version == number)))
    for skill_id in plan.removed:
        for table in (schema.versions, schema.usage, schema.ledger):
            await connection.execute(delete(table).where(table.c.skill_id == skill_id))
    head = schema.change_head
    moved = await connection.execute(
        update(head)
        .where((head.c.ns == NAMESPACE) & (head.c.seq == plan.assumed.seq) & (head.c.hash == plan.assumed.hash))
        .values(seq=plan.end.seq, hash=plan.end.hash)
    )
    assert moved.rowcount == 1, "the counter moved under the write lock"


@contextmanager
def _answering() -> Iterator[None]:
    """The database's trouble as the port's: `Unavailable`."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("every connection to the database is in use") from error
    except DatabaseError as error:
        # The driver raises the base class itself for a file that is damaged or no database; the
        # subclasses other than OperationalError are mistakes of ours.
        if type(error) is not DatabaseError and not isinstance(error, OperationalError):
            raise
        # `orig` alone: the whole error quotes the statement's parameters, and this message goes to callers.
        raise _trouble(error.orig) from error


def _trouble(error: BaseException | None) -> Unavailable:
    """What the driver says, in the port's words."""
    if getattr(error, "sqlite_errorcode", None) in _FULL:
        return Full("the disk of the database is full")
    return Unavailable(f"the database does not answer: {error}")


def _write_ahead(path: Path) -> None:
    """Puts the file into WAL mode, where it stays. When others open a new file at the same moment SQLite
    refuses that as locked and does not wait, whatever its timeout."""
    deadline_s = monotonic_s() + _LOCK_WAIT_MS / 1000
    with closing(sqlite3.connect(path)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic_s() >= deadline_s:
                    raise
                time.sleep(_LOCK_PAUSE_S)
            else:
                return


def _engine_of_a_thread(url: URL, **options: Any) -> Engine:
    """For the one thread that works with it, which need not be the one that closes it."""
    return create_engine(
        url.set(drivername="sqlite"),
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False},
        **options,
    )


def _set_up(engine: Engine) -> None:
    """Makes the driver leave transactions to us: its own would start one only at the first write."""

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_MS}")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()


def _read_through(engine: Engine) -> None:
    """Four connections would keep up to 2 MB each of what the operating system has in memory already."""

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA cache_size = -{_READ_CACHE_KB}")
        cursor.close()


def _begin_with(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(statement)
