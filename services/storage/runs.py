"""Runs in the SQL store's database."""

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio.engine import AsyncConnection

from services.failures import NotFound
from services.runs.nouns import Run, RunQuery
from services.storage import run_rules, schema
from services.storage.plan import WritePlan
from services.storage.publishing import open_plan
from services.storage.run_rules import Rule
from services.storage.sql import SqlStore


class SqlRuns:
    """`RunStore` over an open store, whose connections and write lock it shares; nothing to close."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def create(self, run: Run) -> Run:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Run]:
            plan = await open_plan(connection, self._store.epoch, {run_rules.owner_of(run)})
            return plan, run_rules.put(plan, run)

        return await self._store.commit(planned)

    async def run(self, run_id: str) -> Run:
        async with self._store.reading() as connection:
            return await _run(connection, run_id)

    async def change(self, run_id: str, rule: Rule) -> Run:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Run]:
            run = await _run(connection, run_id)
            plan = await open_plan(connection, self._store.epoch, {run_rules.owner_of(run)})
            return plan, run_rules.changed(plan, run, rule)

        return await self._store.commit(planned)

    async def runs(self, query: RunQuery) -> list[Run]:
        table = schema.runs
        found = select(table.c.body).where(table.c.principal == query.principal)
        if query.before is not None:
            found = found.where(table.c.id < query.before)
        async with self._store.reading() as connection:
            bodies = await connection.scalars(found.order_by(table.c.id.desc()).limit(query.limit))
            return [run_rules.read(body) for body in bodies]

    async def working(self) -> list[Run]:
        table = schema.runs
        async with self._store.reading() as connection:
            bodies = await connection.scalars(select(table.c.body).where(table.c.status == "working"))
            return [run_rules.read(body) for body in bodies]

    async def expire_runs(self, before: str, batch: int) -> int:
        table = schema.runs
        oldest = select(table.c.id).where(table.c.expires_at < before).order_by(table.c.expires_at).limit(batch)
        async with self._store.writing() as connection:
            return (await connection.execute(delete(table).where(table.c.id.in_(oldest)))).rowcount


async def _run(connection: AsyncConnection, run_id: str) -> Run:
    body = await connection.scalar(select(schema.runs.c.body).where(schema.runs.c.id == run_id))
    if body is None:
        raise NotFound("there is no such run", run=run_id)
    return run_rules.read(body)
