"""Invocations and what is counted of them, in the SQL store's database."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, select

from services.models import Invocation, Usage
from services.ports import InvocationQuery
from services.storage import schema
from services.storage.database import Database


async def record(database: Database, invocations: Sequence[Invocation]) -> None:
    if invocations:
        # A batch is given again when the answer to its commit was lost, and may name one call twice.
        last = {invocation.id: invocation for invocation in invocations}
        await database.record([msgspec.structs.asdict(invocation) for invocation in last.values()])


async def find(database: Database, query: InvocationQuery) -> list[Invocation]:
    table = schema.invocations
    found = select(table).order_by(table.c.id.desc()).limit(query.limit)
    for column, asked in ((table.c.skill_id, query.skill_id), (table.c.caller, query.caller), (table.c.ok, query.ok)):
        if asked is not None:
            found = found.where(column == asked)
    if query.since is not None:
        found = found.where(table.c.at >= query.since)
    if query.until is not None:
        found = found.where(table.c.at < query.until)
    if query.before is not None:
        found = found.where(table.c.id < query.before)
    async with database.reading() as connection:
        rows = (await connection.execute(found)).all()
    return [Invocation(**row._mapping) for row in rows]


async def expire(database: Database, before: str, batch: int) -> int:
    table = schema.invocations
    oldest = select(table.c.id).where(table.c.at < before).order_by(table.c.at).limit(batch)
    async with database.writing() as connection:
        return (await connection.execute(delete(table).where(table.c.id.in_(oldest)))).rowcount


async def usage(database: Database, skill_id: str) -> list[Usage]:
    table = schema.usage
    query = select(table).where(table.c.skill_id == skill_id).order_by(table.c.version.desc())
    async with database.reading() as connection:
        return [Usage(**row._mapping) for row in await connection.execute(query)]
