"""What the SQL store needs of a database, named by what differs between SQLite and PostgreSQL."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import ColumnElement, Executable, Table, inspect, select, update
from sqlalchemy import Row as SqlRow
from sqlalchemy.ext.asyncio.engine import AsyncConnection

from services.failures import Unavailable
from services.storage import schema
from services.storage.migrations import steps_from
from services.storage.plan import GENESIS, NAMESPACE, Row, WritePlan

Answer = TypeVar("Answer")
PlanFor = Callable[[AsyncConnection], Awaitable[tuple[WritePlan, Answer]]]
"""Reads through the connection, which is one snapshot, and answers what to commit and what to return
then. It may be called several times for one write, and its plan dropped."""

log = structlog.get_logger(__name__)

# Keys in one query: below every SQLite build's limit on bound parameters.
KEYS_MAX = 500


class Database(Protocol):
    """One open database. Every method raises `Unavailable` when it does not answer in time."""

    clock_s: ColumnElement[float]
    """Seconds since 1970 by the database's own clock: replicas whose clocks differ agree on it."""
    shared: bool
    """True when replicas on several machines may use it, which then share no disk."""

    async def prepare(self, migrate: bool = False) -> str:
        """Makes what is missing and answers the log's epoch. An older schema is brought up when the database
        is one machine's own, or when `migrate` says so; else it is `Unavailable`, as a newer one is."""
        ...

    async def found_schema(self) -> int | None:
        """The number of the schema that is there, None where there are no tables; changes nothing."""
        ...

    def insert(self, table: Table) -> Any:
        """The dialect's own INSERT, which has `on_conflict_do_nothing` and `on_conflict_do_update`;
        SQLAlchemy has no type for what the two have in common."""
        ...

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One snapshot of the database."""
        ...

    async def look(self, statement: Executable, **parameters: Any) -> Sequence[SqlRow[Any]]:
        """The rows of a single small read that must not wait behind others; it sees a snapshot of its own."""
        ...

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """For writes that move no counter. Each statement is whole or nothing; what several of them
        do together may be left by half."""
        ...

    async def commit(self, plan_for: PlanFor[Answer]) -> Answer:
        """Commits a plan that holds at the moment of its commit, or nothing."""
        ...

    async def record(self, rows: Sequence[Row]) -> None:
        """Adds invocations that are not there yet and counts them in `usage`, in one step."""
        ...

    async def close(self) -> None: ...


async def found_schema(connection: AsyncConnection) -> int | None:
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(schema.deployment.name)):
        return None
    return await connection.scalar(select(schema.deployment.c.schema_version))


async def prepare_tables(connection: AsyncConnection, insert: Callable[[Table], Any], migrate: bool) -> str:
    """Makes what is missing and answers the epoch; a second replica finds all of it.

    For a transaction that no other replica's call overlaps. Raises `Unavailable`, with nothing changed,
    for a database of a newer schema, and for one of an older schema unless `migrate`.
    """
    found = await found_schema(connection)
    if found is not None and found != schema.SCHEMA_VERSION:
        await _bring_up(connection, found, migrate)
    await connection.run_sync(schema.metadata.create_all)
    table = schema.deployment
    await connection.execute(
        insert(table)
        .values(id=1, schema_version=schema.SCHEMA_VERSION, epoch=secrets.token_hex(4))
        .on_conflict_do_nothing()
    )
    await connection.execute(
        insert(schema.change_head).values(ns=NAMESPACE, seq=0, hash=GENESIS).on_conflict_do_nothing()
    )
    return str((await connection.execute(select(table.c.epoch))).scalar_one())


async def _bring_up(connection: AsyncConnection, found: int, migrate: bool) -> None:
    if found > schema.SCHEMA_VERSION:
        raise Unavailable(
            f"the database has schema {found} of a newer Skillwire, and this one knows {schema.SCHEMA_VERSION}: "
            "start the newer one, or restore a backup from before it",
            code="newer_schema",
        )
    if not migrate:
        raise Unavailable(
            f"the database has schema {found}, this version needs {schema.SCHEMA_VERSION}: run `skillwire migrate`",
            code="older_schema",
        )
    for step in steps_from(found):
        await connection.run_sync(step.apply)
        log.info("the database was migrated", schema=step.to, summary=step.summary)
    await connection.execute(update(schema.deployment).values(schema_version=schema.SCHEMA_VERSION))


def counted(invocations: Sequence[Row]) -> list[Row]:
    """Rows of `usage` to add to what is there."""
    usage: dict[tuple[str, int], Row] = {}
    for row in invocations:
        skill_id, version = row["skill_id"], row["version"]
        nothing = {"skill_id": skill_id, "version": version, "calls": 0, "failures": 0, "last_at": ""}
        counts = usage.setdefault((skill_id, version), nothing)
        counts["calls"] += 1
        counts["failures"] += not row["ok"]
        counts["last_at"] = max(counts["last_at"], row["at"])
    return [*usage.values()]


def replacing(insert: Any, table: Table) -> Any:
    """Completes an INSERT to one that replaces the row of the same primary key. Costs a millisecond."""
    keys = {column.name for column in table.primary_key}
    return insert.on_conflict_do_update(
        index_elements=sorted(keys),
        set_={column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys},
    )
