"""PostgreSQL for the SQL store, through asyncpg; needs the extra `postgres`.

Idea: no client may ever hold the counter row, because a client can be paused, cut off or killed
while it does, and every write of every replica waits for that row. So a write is read for in a
snapshot, planned in Python, and committed by one call of a function in the database that takes
the counter only if it still stands where the plan assumes. On a lost race nothing was changed,
and the write is read for and planned anew.

| when                               | then                                                             |
|------------------------------------|------------------------------------------------------------------|
| another replica commits first      | the plan is made again, `TRIES_MAX` times within `WRITE_TIMEOUT_S` |
| a replica is paused or killed      | it holds nothing; its call is committed or was never sent        |
| the server does not answer         | `Unavailable` after `TAIL_TIMEOUT_S` (tail), else `WRITE_TIMEOUT_S` |
| the answer to a commit is lost     | `Unavailable`; the write may be there, as after any lost answer  |
| the server was restarted           | closed connections are noticed when they are taken from the pool |
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import ColumnElement, Executable, Table, event, literal_column, text
from sqlalchemy import Row as SqlRow
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio.engine import AsyncConnection, AsyncEngine, create_async_engine

from services import metrics
from services.failures import Full, Unavailable
from services.storage.database import Answer, PlanFor, found_schema, prepare_tables
from services.storage.plan import NAMESPACE, Row, WritePlan
from services.storage.schema import storable

TAIL_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 5.0
# A step may read and write whole tables.
MIGRATE_TIMEOUT_S = 600.0
TRIES_MAX = 50
# Six connections a replica, with the one that listens for hints: ten replicas take 60 of the 100 that a
# server allows by default.
_TAILS, _READS, _WRITES = 1, 2, 2
# The first wait after a lost race, at most; it doubles with each up to `_PAUSE_MAX_S`.
_PAUSE_S, _PAUSE_MAX_S = 0.002, 0.1
_SESSION = {
    "application_name": "skillwire",
    "idle_in_transaction_session_timeout": "2s",  # a paused reader must not hold its snapshot
    "lock_timeout": "1s",
    "standard_conforming_strings": "on",  # what `_literal` relies on
}
_BAD_URL = "the database URL has a part that PostgreSQL does not understand"
# Classes and codes of SQLSTATE that say the server cannot now; any other one is a mistake of ours.
_TROUBLE = ("08", "28", "3D", "40", "53", "57", "58", "XX", "25006", "25P03", "42501", "55P03")
# Another transaction was in the way and nothing was changed.
_LOST_RACE = ("40001", "40P01", "55P03")


class PromptConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Closing one never waits: the polite way asks the server, and one that is frozen never answers."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002  # the base class's
        self.terminate()


class PostgresDatabase:
    """A server that replicas on any number of machines share."""

    clock_s: ColumnElement[float] = literal_column("extract(epoch FROM clock_timestamp())::float8")
    shared = True

    def __init__(self, url: URL) -> None:
        # Without SQLAlchemy's own reading of it: asyncpg knows all of libpq's parameters, such as sslmode.
        dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._dsn = dsn
        self._tails = _engine(dsn, "AUTOCOMMIT", _TAILS, TAIL_TIMEOUT_S)
        self._reads = _engine(dsn, "REPEATABLE READ", _READS, READ_TIMEOUT_S)
        self._writes = _engine(dsn, "AUTOCOMMIT", _WRITES, WRITE_TIMEOUT_S)
        self._statements = _named(Path(__file__).with_name("postgres.sql").read_text())
        # Of this replica's writes one at a time: they would only lose races against each other.
        self._writer = asyncio.Lock()

    async def prepare(self, migrate: bool = False) -> str:
        timeout_s = MIGRATE_TIMEOUT_S if migrate else WRITE_TIMEOUT_S
        engine = _engine(self._dsn, "READ COMMITTED", 1, timeout_s)
        with _answering():
            try:
                async with asyncio.timeout(timeout_s), engine.begin() as connection:
                    await connection.execute(text(self._statements["patience"]))
                    await connection.execute(text(self._statements["one_at_a_time"]))
                    epoch = await prepare_tables(connection, self.insert, migrate)
                    await connection.exec_driver_sql(self._statements["install"])
                    return epoch
            except ValueError as error:  # what it quotes of the URL may be the password
                raise Unavailable(_BAD_URL) from error
            finally:
                await engine.dispose()

    async def found_schema(self) -> int | None:
        async with self.reading() as connection:
            return await found_schema(connection)

    def insert(self, table: Table) -> Any:
        return postgres_insert(table)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        async with _connected(self._reads, READ_TIMEOUT_S) as connection:
            yield connection

    async def look(self, statement: Executable, **parameters: Any) -> Sequence[SqlRow[Any]]:
        async with _connected(self._tails, TAIL_TIMEOUT_S) as connection:
            return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with _connected(self._writes, WRITE_TIMEOUT_S) as connection:
            yield connection

    async def commit(self, plan_for: PlanFor[Answer]) -> Answer:
        with _answering():
            async with asyncio.timeout(WRITE_TIMEOUT_S), self._writer:
                pause_s = _PAUSE_S
                for _ in range(TRIES_MAX):
                    async with self.reading() as connection:
                        plan, answer = await plan_for(connection)
                    if plan.is_empty or await self._take(plan):
                        return answer
                    metrics.write_races_lost.inc()
                    await asyncio.sleep(random.uniform(0, pause_s))
                    pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        raise Unavailable(f"other replicas wrote first {TRIES_MAX} times in a row; try again")

    async def record(self, rows: Sequence[Row]) -> None:
        statement = self._statements["record"] % _quoted([_as_text(row) for row in rows])
        async with self.writing() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, PromptConnection)
            await driver.execute(statement)

    async def close(self) -> None:
        async with self._writer:
            await self._writes.dispose()
        await self._reads.dispose()
        await self._tails.dispose()

    async def _take(self, plan: WritePlan) -> bool:
        """Commits the plan; False when it was made for a log that has moved on."""
        statement = self._statements["write"] % (plan.end.seq, _literal(plan))
        async with self.writing() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, PromptConnection)
            try:
                return str(await driver.execute(statement)) == "SELECT 1"
            except asyncpg.PostgresError as error:
                if error.sqlstate in _LOST_RACE:
                    return False
                raise
            except asyncio.CancelledError:
                driver.terminate()  # the next one on this connection would wait for the answer to this
                raise


def _engine(dsn: str, isolation: Any, connections: int, timeout_s: float) -> AsyncEngine:
    connect = partial(
        asyncpg.connect,
        dsn,
        connection_class=PromptConnection,
        timeout=timeout_s,
        # Behind our own limits: it ends what SQLAlchemy does by itself, such as a ROLLBACK.
        command_timeout=timeout_s + 1,
        server_settings=_SESSION,
    )
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level=isolation,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def is_open(connection: Any, _record: object, _proxy: object) -> None:
        if connection.driver_connection.is_closed():
            raise DisconnectionError  # makes the pool open another one

    return engine


@asynccontextmanager
async def _connected(engine: AsyncEngine, timeout_s: float) -> AsyncIterator[AsyncConnection]:
    with _answering():
        async with asyncio.timeout(timeout_s), engine.connect() as connection:
            yield connection


@contextmanager
def _answering() -> Iterator[None]:
    """The server's trouble as the port's: `Unavailable`."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("every connection to the database is in use") from error
    except TimeoutError as error:
        raise Unavailable("the database does not answer in time") from error
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        cause = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error
        if isinstance(cause, asyncpg.exceptions.ClientConfigurationError):
            raise Unavailable(_BAD_URL) from error
        if not _is_trouble(cause):
            raise
        if isinstance(cause, asyncpg.exceptions.DiskFullError):
            raise Full("the disk of the database is full") from error
        # The driver's words alone: the whole error quotes the statement's parameters, and this goes to callers.
        raise Unavailable(f"the database does not answer: {cause}") from error
    except OSError as error:
        raise Unavailable(f"the database does not answer: {error}") from error


def _is_trouble(error: BaseException | None) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(_TROUBLE)
    # ValueError: a parameter that cannot be sent; what else the driver itself says is of a closed connection.
    return isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)


def _literal(plan: WritePlan) -> str:
    """The plan as the function takes it, as an SQL literal."""
    rows = {
        "changes": plan.changes,
        "versions": plan.versions,
        "solutions": plan.solutions,
        "skills": [*plan.skills.values()],
        "ledger": [*plan.ledger.values()],
        "streams": plan.stream_rows(),
        "levels": [{"id": incident, "level": level} for incident, level in plan.levels.items()],
        "pruned": [{"skill_id": skill_id, "version": version} for skill_id, version in plan.pruned],
        "removed": [{"skill_id": skill_id} for skill_id in plan.removed],
        "runs": [*plan.runs.values()],
        "documents": [*plan.documents.values()],
    }
    document: dict[str, Any] = {"ns": NAMESPACE, "assumed": plan.assumed, "end": plan.end}
    document |= {table: [_as_text(row) for row in some] for table, some in rows.items()}
    return _quoted(document)


def _quoted(document: Any) -> str:
    """JSON as an SQL literal."""
    quoted = msgspec.json.encode(document).decode().replace("'", "''")
    return f"'{quoted}'"


def _as_text(row: Row) -> Row:
    """The row as JSON can carry it to PostgreSQL, which reads bytes from hex."""
    return {
        name: f"\\x{value.hex()}" if isinstance(value, bytes) else storable(value) if isinstance(value, str) else value
        for name, value in row.items()
    }


def _named(script: str) -> dict[str, str]:
    """The statements of a script by the names that stand before them."""
    parts = (part.partition("\n") for part in script.split("-- name: ")[1:])
    return {name.strip(): statement.strip() for name, _, statement in parts}
