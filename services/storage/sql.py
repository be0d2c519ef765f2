"""The metadata store on SQL, through SQLAlchemy Core.

SQLite runs in WAL mode with `synchronous=FULL`: a commit that was answered survives a power
cut. Writes are `BEGIN IMMEDIATE`, one at a time in this process and, by SQLite's own lock, one
at a time among all replicas of the machine; reads never wait for them.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import delete, event, func, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.failures import Unavailable
from services.models import Change, Diagnostic, Draft, Invocation, LedgerEntry, Published, Version
from services.ports import CatalogSnapshot, InvocationQuery, Position
from services.storage import publishing, schema
from services.storage.append import GENESIS, NAMESPACE, ChangeWriter, change_id, in_epoch, read_change

# How long a writer waits for another replica's write before it gives up.
_LOCK_WAIT_MS = 5000
# With every read of the log, because a replica may fence the log of all.
_EPOCH = select(schema.deployment.c.epoch).scalar_subquery().label("epoch")


class SqlStore:
    """`MetadataStore` on one SQL database; open it with `SqlStore.open`, end it with `close`."""

    def __init__(self, reads: AsyncEngine, writes: AsyncEngine, epoch: str) -> None:
        self._reads = reads
        self._writes = writes
        # As last seen; what a write stores under an older one is read under the newer.
        self.epoch = epoch
        self._writer = asyncio.Lock()

    @classmethod
    async def open(cls, url: str) -> "SqlStore":
        """Connects, makes the tables where they are missing, and reads the log's epoch.

        Raises `Unavailable` with the reason: a database of a newer version, no permission, ...
        """
        parsed = _sqlite_url(url)
        async_url = parsed.set(drivername="sqlite+aiosqlite")
        reads = create_async_engine(async_url, pool_size=4)
        writes = create_async_engine(async_url, pool_size=1, max_overflow=0)
        _begin_with(reads, "BEGIN")
        _begin_with(writes, "BEGIN IMMEDIATE")
        try:
            epoch = await _prepare(writes)
        except BaseException:
            await reads.dispose()
            await writes.dispose()
            raise
        return cls(reads, writes, epoch)

    async def close(self) -> None:
        async with self._writer:
            await self._writes.dispose()
        await self._reads.dispose()

    async def head(self) -> Position:
        async with self.reading() as connection:
            position = await _head(connection)
        self.epoch = position.epoch
        return position

    async def tail(self, after: int, limit: int) -> list[Change]:
        table = schema.changes
        query = (
            select(table, _EPOCH)
            .where((table.c.ns == NAMESPACE) & (table.c.seq > after))
            .order_by(table.c.seq)
            .limit(limit)
        )
        async with self.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [read_change(row.epoch, row) for row in rows]

    async def snapshot(self) -> CatalogSnapshot:
        async with self.reading() as connection:
            position = await _head(connection)
            rows = (await connection.execute(publishing.skills_query())).all()
            streams = (await connection.execute(select(schema.streams))).all()
        self.epoch = position.epoch
        skills = [publishing.read_skill(row) for row in rows]
        newest = {(row.topic, row.owner, row.visibility): in_epoch(self.epoch, row.change_id) for row in streams}
        return CatalogSnapshot(position, skills, newest)

    async def fence(self, old_epoch: str) -> Position:
        table = schema.deployment
        async with self.writing() as connection:
            # Compared and set: of all replicas that notice at once, one does it.
            await connection.execute(update(table).where(table.c.epoch == old_epoch).values(epoch=secrets.token_hex(4)))
            position = await _head(connection)
        self.epoch = position.epoch
        return position

    async def trim(self, keep_rows: int, batch: int) -> int:
        table = schema.changes
        ours = table.c.ns == NAMESPACE
        async with self.writing() as connection:
            oldest = await connection.scalar(select(func.min(table.c.seq)).where(ours))
            head = (await _head(connection)).seq
            last = min(head - max(1, keep_rows), (oldest or 0) + batch - 1)
            return (await connection.execute(delete(table).where(ours & (table.c.seq <= last)))).rowcount

    async def publish(self, drafts: Sequence[Draft]) -> list[Published]:
        async with self.writing() as connection:
            log = await ChangeWriter.open(connection, self.epoch)
            published = [await publishing.publish(connection, log, draft) for draft in drafts]
            await log.finish()
        return published

    async def activate(self, skill_id: str, version: int, by: str) -> Published:
        async with self.writing() as connection:
            log = await ChangeWriter.open(connection, self.epoch)
            published = await publishing.activate(connection, log, skill_id, version, by)
            await log.finish()
        return published

    async def deactivate(self, skill_id: str, by: str) -> Published:
        async with self.writing() as connection:
            log = await ChangeWriter.open(connection, self.epoch)
            published = await publishing.deactivate(connection, log, skill_id, by)
            await log.finish()
        return published

    async def version(self, skill_id: str, version: int) -> Version:
        async with self.reading() as connection:
            return await publishing.read_version(connection, skill_id, version)

    async def versions(self, skill_id: str) -> list[Version]:
        table = schema.versions
        query = select(table.c.body).where(table.c.skill_id == skill_id).order_by(table.c.version.desc())
        async with self.reading() as connection:
            bodies = (await connection.scalars(query)).all()
        return [msgspec.json.decode(body, type=Version) for body in bodies]

    async def ledger(self, source: str) -> dict[str, LedgerEntry]:
        table = schema.ledger
        async with self.reading() as connection:
            rows = (await connection.execute(select(table).where(table.c.source == source))).all()
        return {
            row.path: LedgerEntry(
                row.source,
                row.path,
                row.digest,
                row.skill_id,
                msgspec.json.decode(row.diagnostics, type=tuple[Diagnostic, ...]),
            )
            for row in rows
        }

    async def note(self, entries: Sequence[LedgerEntry]) -> None:
        table = schema.ledger
        async with self.writing() as connection:
            for entry in entries:
                if entry.digest or entry.diagnostics:
                    await publishing.write_ledger(connection, entry)
                else:
                    await connection.execute(
                        delete(table).where((table.c.source == entry.source) & (table.c.path == entry.path))
                    )

    async def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        table = schema.leases
        async with self.writing() as connection:
            # The database's clock, so that replicas whose clocks differ agree on who holds it.
            now = float(await connection.scalar(text("SELECT (julianday('now') - 2440587.5) * 86400.0")) or 0.0)
            values = {"holder": holder, "until": now + ttl_s}
            taken = await connection.execute(
                update(table)
                .where((table.c.name == name) & ((table.c.holder == holder) | (table.c.until < now)))
                .values(**values)
            )
            if taken.rowcount:
                return True
            made = await connection.execute(upsert(table).values(name=name, **values).on_conflict_do_nothing())
            return bool(made.rowcount)

    async def release_lease(self, name: str, holder: str) -> None:
        table = schema.leases
        async with self.writing() as connection:
            await connection.execute(delete(table).where((table.c.name == name) & (table.c.holder == holder)))

    async def record(self, invocations: Sequence[Invocation]) -> None:
        if not invocations:
            return
        rows = [msgspec.structs.asdict(invocation) for invocation in invocations]
        async with self.writing() as connection:
            # A batch is given again when the answer to its commit was lost.
            await connection.execute(upsert(schema.invocations).on_conflict_do_nothing(), rows)

    async def invocations(self, query: InvocationQuery) -> list[Invocation]:
        table = schema.invocations
        found = select(table).order_by(table.c.id.desc()).limit(query.limit)
        if query.skill_id is not None:
            found = found.where(table.c.skill_id == query.skill_id)
        if query.since is not None:
            found = found.where(table.c.at >= query.since)
        if query.before is not None:
            found = found.where(table.c.id < query.before)
        async with self.reading() as connection:
            rows = (await connection.execute(found)).all()
        return [Invocation(**row._mapping) for row in rows]

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]:
        table = schema.vectors
        found: dict[str, bytes] = {}
        async with self.reading() as connection:
            # 500: below every SQLite build's limit on bound parameters
            for start in range(0, len(keys), 500):
                query = select(table.c.key, table.c.vector).where(
                    (table.c.model == model) & table.c.key.in_(keys[start : start + 500])
                )
                found.update((row.key, row.vector) for row in await connection.execute(query))
        return found

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        if not vectors:
            return
        rows = [{"model": model, "key": key, "vector": vector} for key, vector in vectors.items()]
        async with self.writing() as connection:
            await connection.execute(upsert(schema.vectors).on_conflict_do_nothing(), rows)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One snapshot of the database."""
        with _answering():
            async with self._reads.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the write lock from its start; committed when the block ends well."""
        with _answering():
            async with self._writer, self._writes.begin() as connection:
                yield connection


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
        raise Unavailable(f"the database does not answer: {error.orig}") from error


def _sqlite_url(url: str) -> URL:
    """A URL whose folder exists. Raises `Unavailable` for what this store cannot open."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Unavailable("the database URL must be sqlite:///PATH") from error
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise Unavailable(f"the database URL must be sqlite:///PATH, not {parsed.render_as_string()}")
    folder = Path(str(parsed.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the folder of the database cannot be made: {error}") from error
    return parsed


def _begin_with(engine: AsyncEngine, statement: str) -> None:
    """Makes the driver leave transactions to us: its own would start one only at the first write."""

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_LOCK_WAIT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(statement)


async def _prepare(writes: AsyncEngine) -> str:
    """Makes what is missing and answers the epoch; a second replica finds all of it."""
    with _answering():
        async with writes.begin() as connection:
            await connection.run_sync(schema.metadata.create_all)
            table = schema.deployment
            await connection.execute(
                upsert(table)
                .values(id=1, schema_version=schema.SCHEMA_VERSION, epoch=secrets.token_hex(4))
                .on_conflict_do_nothing()
            )
            await connection.execute(
                upsert(schema.change_head).values(ns=NAMESPACE, seq=0, hash=GENESIS).on_conflict_do_nothing()
            )
            found = (await connection.execute(select(table))).one()
            if found.schema_version != schema.SCHEMA_VERSION:
                raise Unavailable(
                    f"the database has schema {found.schema_version}, this version needs {schema.SCHEMA_VERSION}"
                )
            return str(found.epoch)


async def _head(connection: AsyncConnection) -> Position:
    table = schema.change_head
    row = (await connection.execute(select(table, _EPOCH).where(table.c.ns == NAMESPACE))).one()
    return Position(row.epoch, row.seq, change_id(row.epoch, row.seq, row.hash))
