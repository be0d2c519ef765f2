"""Incidents and solutions in the SQL store's database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import case, func, or_, select, update
from sqlalchemy.ext.asyncio.engine import AsyncConnection

from services.errors.nouns import Incident, IncidentQuery, KnownIncidents, Level, Solution
from services.failures import NotFound
from services.models import Visibility
from services.storage import incident_rules, schema
from services.storage.plan import WritePlan
from services.storage.publishing import open_plan
from services.storage.sql import SqlStore


class SqlIncidents:
    """`IncidentStore` over an open store, whose connections and write lock it shares; nothing to close."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def record(self, incidents: Sequence[Incident]) -> list[Incident]:
        if not incidents:
            return []
        table = schema.incidents
        adding = self._store.database.insert(table)
        first_at, last_at = table.c.first_at, table.c.last_at
        new = adding.excluded
        adding = adding.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "count": table.c.count + new.count,
                "first_at": case((first_at < new.first_at, first_at), else_=new.first_at),
                "last_at": case((last_at > new.last_at, last_at), else_=new.last_at),
            },
        )
        answers: dict[str, Incident] = {}
        async with self._store.writing() as connection:
            for incident in incidents:
                counted = await connection.execute(adding.values(**msgspec.structs.asdict(incident)).returning(table))
                answers[incident.id] = _read(counted.one())
        return [*answers.values()]

    async def incident(self, incident_id: str) -> Incident:
        async with self._store.reading() as connection:
            return await _incident(connection, incident_id)

    async def incidents(self, query: IncidentQuery) -> list[Incident]:
        table = schema.incidents
        found = select(table).order_by(table.c.last_at.desc(), table.c.id.desc()).limit(query.limit)
        if query.error_class is not None:
            found = found.where(table.c.error_class == query.error_class)
        if query.after is not None:
            at, id_ = query.after
            found = found.where(or_(table.c.last_at < at, (table.c.last_at == at) & (table.c.id < id_)))
        async with self._store.reading() as connection:
            return [_read(row) for row in await connection.execute(found)]

    async def known(self, solved_max: int) -> KnownIncidents:
        table = schema.incidents
        marked = select(table).where(table.c.level != "none")
        has_solution = table.c.id.in_(select(schema.solutions.c.incident))
        solved = select(table).where(has_solution).order_by(table.c.last_at.desc()).limit(solved_max)
        async with self._store.reading() as connection:
            return KnownIncidents(
                [_read(row) for row in await connection.execute(marked)],
                [_read(row) for row in await connection.execute(solved)],
            )

    async def solutions(self, incident_ids: Sequence[str]) -> list[Solution]:
        table = schema.solutions
        async with self._store.reading() as connection:
            found = await connection.execute(select(table).where(table.c.incident.in_(incident_ids)))
            return [Solution(**row._mapping) for row in found]

    async def add_solution(self, solution: Solution, owner: str, visibility: Visibility) -> int:
        table = schema.solutions

        async def planned(connection: AsyncConnection) -> tuple[WritePlan, int]:
            plan = await open_plan(connection, self._store.epoch, {owner})
            incident = await _incident(connection, solution.incident)
            count = await connection.scalar(
                select(func.count()).select_from(table).where(table.c.incident == incident.id)
            )
            return plan, incident_rules.add_solution(plan, incident, count or 0, solution, owner, visibility)

        return await self._store.commit(planned)

    async def count_outcome(self, incident_id: str, solution_id: str, worked: bool) -> Solution:
        table = schema.solutions
        this = (table.c.id == solution_id) & (table.c.incident == incident_id)
        counted = update(table).where(this).values(tried=table.c.tried + 1, worked=table.c.worked + int(worked))
        async with self._store.writing() as connection:
            row = (await connection.execute(counted.returning(table))).one_or_none()
        if row is None:
            raise NotFound(f"this incident has no solution {solution_id}", solution=solution_id)
        return Solution(**row._mapping)

    async def mark(
        self, incident_id: str, level: Level, by: str, owner: str, visibility: Visibility
    ) -> tuple[Incident, int]:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, tuple[Incident, int]]:
            plan = await open_plan(connection, self._store.epoch, {owner})
            incident = await _incident(connection, incident_id)
            return plan, incident_rules.mark(plan, incident, level, by, owner, visibility)

        return await self._store.commit(planned)


async def _incident(connection: AsyncConnection, incident_id: str) -> Incident:
    found = (
        await connection.execute(select(schema.incidents).where(schema.incidents.c.id == incident_id))
    ).one_or_none()
    if found is None:
        raise NotFound(f"there is no incident {incident_id}", incident=incident_id)
    return _read(found)


def _read(row: Any) -> Incident:
    return Incident(**row._mapping)
