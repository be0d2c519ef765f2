"""Incidents and solutions in the SQL store's database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.errors.nouns import Incident, IncidentQuery, KnownIncidents, Level, Solution
from services.failures import Conflict, NotFound
from services.models import Visibility
from services.storage import schema
from services.storage.append import ChangeWriter
from services.storage.sql import SqlStore

SOLUTIONS_MAX = 50
TOPIC = "solutions"


class SqlIncidents:
    """`IncidentStore` over an open store, whose connections and write lock it shares; nothing to close."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def record(self, incidents: Sequence[Incident]) -> list[Incident]:
        if not incidents:
            return []
        table = schema.incidents
        adding = upsert(table)
        adding = adding.on_conflict_do_update(
            index_elements=["id"],
            set_={
                "count": table.c.count + adding.excluded.count,
                "first_at": func.min(table.c.first_at, adding.excluded.first_at),
                "last_at": func.max(table.c.last_at, adding.excluded.last_at),
            },
        )
        rows = [msgspec.structs.asdict(incident) for incident in incidents]
        async with self._store.writing() as connection:
            await connection.execute(adding, rows)
            found = await connection.execute(select(table).where(table.c.id.in_([row["id"] for row in rows])))
            return [_read(row) for row in found]

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
        async with self._store.writing() as connection:
            incident = await _incident(connection, solution.incident)
            count = await connection.scalar(
                select(func.count()).select_from(table).where(table.c.incident == incident.id)
            )
            if count is not None and count >= SOLUTIONS_MAX:
                raise Conflict(f"this incident has {count} solutions already", code="too_many_solutions")
            await connection.execute(insert(table).values(**msgspec.structs.asdict(solution)))
            data = {"solution": solution.id, "text": solution.text, "by": solution.author}
            return await self._append(connection, "solution.added", incident, owner, visibility, data)

    async def count_outcome(self, incident_id: str, solution_id: str, worked: bool) -> Solution:
        table = schema.solutions
        this = (table.c.id == solution_id) & (table.c.incident == incident_id)
        counted = update(table).where(this).values(tried=table.c.tried + 1, worked=table.c.worked + int(worked))
        async with self._store.writing() as connection:
            await connection.execute(counted)
            row = (await connection.execute(select(table).where(this))).one_or_none()
        if row is None:
            raise NotFound(f"this incident has no solution {solution_id}", solution=solution_id)
        return Solution(**row._mapping)

    async def mark(
        self, incident_id: str, level: Level, by: str, owner: str, visibility: Visibility
    ) -> tuple[Incident, int]:
        table = schema.incidents
        async with self._store.writing() as connection:
            await connection.execute(update(table).where(table.c.id == incident_id).values(level=level))
            incident = await _incident(connection, incident_id)
            data = {"level": level, "by": by}
            return incident, await self._append(connection, "incident.marked", incident, owner, visibility, data)

    async def _append(
        self,
        connection: AsyncConnection,
        kind: str,
        incident: Incident,
        owner: str,
        visibility: Visibility,
        data: dict[str, Any],
    ) -> int:
        log = await ChangeWriter.open(connection, self._store.epoch)
        about = {"incident": incident.id, "class": incident.error_class, "tool": incident.tool}
        seq = await log.append(
            topic=TOPIC,
            kind=kind,
            dep=f"incident:{incident.id}",
            owner=owner,
            visibility=visibility,
            data={**about, "skill": incident.skill, "pattern": incident.pattern, **data},
        )
        await log.finish()
        return seq


async def _incident(connection: AsyncConnection, incident_id: str) -> Incident:
    found = (
        await connection.execute(select(schema.incidents).where(schema.incidents.c.id == incident_id))
    ).one_or_none()
    if found is None:
        raise NotFound(f"there is no incident {incident_id}", incident=incident_id)
    return _read(found)


def _read(row: Any) -> Incident:
    return Incident(**row._mapping)
