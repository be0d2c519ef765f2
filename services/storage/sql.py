"""The metadata store on SQL, through SQLAlchemy Core: what SQLite and PostgreSQL have in common."""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio.engine import AsyncConnection

from services.failures import NotFound, Unavailable
from services.models import Change, Diagnostic, Draft, Invocation, LedgerEntry, Published, Skill, Usage, Version
from services.ports import CatalogSnapshot, InvocationQuery, Position, ReloadKind
from services.storage import adoption, calls, publishing, ranking, reloads, schema, upkeep
from services.storage.database import KEYS_MAX, Answer, Database, PlanFor, replacing
from services.storage.migrations import Migration, steps_from
from services.storage.plan import NAMESPACE, WritePlan, change_id, in_epoch, ledger_row, read_change
from services.storage.sqlite import SqliteDatabase

# With every read of the log, because a replica may fence the log of all.
_EPOCH = select(schema.deployment.c.epoch).scalar_subquery().label("epoch")
_HEAD = select(schema.change_head, _EPOCH).where(schema.change_head.c.ns == NAMESPACE)
# Made once: to make it anew costs as much as to ask it.
_TAIL = (
    select(schema.changes, _EPOCH)
    .where((schema.changes.c.ns == NAMESPACE) & (schema.changes.c.seq > bindparam("after")))
    .order_by(schema.changes.c.seq)
    .limit(bindparam("most"))
)
_SECRET_BYTES = 32
_URLS = "the database URL must be sqlite:///PATH or postgresql://..."


class SqlStore:
    """`MetadataStore` on one SQL database; open it with `SqlStore.open`, end it with `close`."""

    def __init__(self, database: Database, epoch: str) -> None:
        self.database = database
        # As last seen; what a write stores under an older one is read under the newer.
        self.epoch = epoch

    @classmethod
    async def open(cls, url: str) -> "SqlStore":
        """Connects, makes the tables where they are missing, and reads the log's epoch.

        Raises `Unavailable` with the reason: a database of a newer version, no permission, ...
        """
        database = _database(url)
        try:
            epoch = await database.prepare()
        except BaseException:
            await database.close()
            raise
        return cls(database, epoch)

    async def close(self) -> None:
        await self.database.close()

    @staticmethod
    async def migrate(url: str, *, dry_run: bool) -> Migration:
        """Brings the database to this version's schema, unless `dry_run`, and answers what that takes or
        took. Raises `Unavailable`."""
        database = _database(url)
        try:
            found = await database.found_schema()
            if not dry_run:
                await database.prepare(migrate=True)
            return Migration(found, [] if found is None else steps_from(found))
        finally:
            await database.close()

    async def head(self) -> Position:
        [row] = await self.database.look(_HEAD)
        position = _position(row)
        self.epoch = position.epoch
        return position

    async def tail(self, after: int, limit: int) -> list[Change]:
        rows = await self.database.look(_TAIL, after=after, most=limit)
        return [read_change(row.epoch, row) for row in rows]

    async def snapshot(self) -> CatalogSnapshot:
        async with self.reading() as connection:
            position = _position((await connection.execute(_HEAD)).one())
            kept = publishing.skills_query().where(schema.skills.c.status != "removed")
            rows = (await connection.execute(kept)).all()
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
        return await self.head()

    async def trim(self, keep_rows: int, batch: int, *, sealed: int) -> int:
        table = schema.changes
        ours = table.c.ns == NAMESPACE
        newest = (await self.head()).seq
        async with self.writing() as connection:
            oldest = await connection.scalar(select(func.min(table.c.seq)).where(ours))
            last = min(newest - max(1, keep_rows), sealed, (oldest or 0) + batch - 1)
            return (await connection.execute(delete(table).where(ours & (table.c.seq <= last)))).rowcount

    async def publish(self, drafts: Sequence[Draft]) -> list[Published]:
        ids = {draft.skill_id for draft in drafts}

        async def planned(connection: AsyncConnection) -> tuple[WritePlan, list[Published]]:
            plan, skills = await publishing.read_for_write(connection, self.epoch, ids)
            return plan, [publishing.publish(plan, skills, draft) for draft in drafts]

        return await self.database.commit(planned)

    async def activate(self, skill_id: str, version: int, by: str) -> Published:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Published]:
            plan, skills = await publishing.read_for_write(connection, self.epoch, {skill_id})
            if skill_id not in skills:
                raise NotFound(f"there is no skill {skill_id}")
            chosen = await publishing.read_version(connection, skill_id, version)
            return plan, publishing.activate(plan, skills[skill_id], chosen, by)

        return await self.database.commit(planned)

    async def deactivate(self, skill_id: str, by: str) -> Published:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Published]:
            plan, skills = await publishing.read_for_write(connection, self.epoch, {skill_id})
            return plan, publishing.deactivate(plan, skills.get(skill_id), skill_id, by)

        return await self.database.commit(planned)

    async def restore(self, skill_id: str, by: str) -> Published:
        plan_for = self._of_version(skill_id, upkeep.version_to_restore, partial(upkeep.restore, by=by))
        return await self.commit(plan_for)

    async def remove(self, skill_id: str, by: str) -> Published:
        return await self.commit(self._of_version(skill_id, upkeep.version_to_name, partial(upkeep.remove, by=by)))

    async def pin(self, skill_id: str, version: int, pinned: bool, by: str) -> Published:
        plan_for = self._of_version(skill_id, lambda _: version, partial(upkeep.pin, pinned=pinned, by=by))
        return await self.commit(plan_for)

    async def remove_version(self, skill_id: str, version: int, by: str) -> Published:
        plan_for = self._of_version(skill_id, lambda _: version, partial(upkeep.remove_version, by=by))
        return await self.commit(plan_for)

    async def prune_versions(self, skill_id: str, keep: int) -> int:
        table = schema.versions
        all_of_it = select(table.c.version).where(table.c.skill_id == skill_id).order_by(table.c.version.desc())

        async def planned(connection: AsyncConnection) -> tuple[WritePlan, int]:
            plan, skill = await self._to_keep(connection, skill_id)
            numbers = (await connection.scalars(all_of_it)).all()
            newest = await publishing.read_version(connection, skill_id, numbers[0])
            return plan, upkeep.prune(plan, skill, numbers, newest, keep)

        return await self.database.commit(planned)

    async def adopt(self, skill: Skill, versions: Sequence[Version]) -> Published:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Published]:
            plan, skills = await publishing.read_for_write(connection, self.epoch, {skill.id})
            return plan, adoption.adopt(plan, skills.get(skill.id), skill, versions)

        return await self.database.commit(planned)

    def blobs_in_use(self) -> AsyncIterator[str]:
        return upkeep.blobs_in_use(self.database)

    async def version(self, skill_id: str, version: int) -> Version:
        async with self.reading() as connection:
            return await publishing.read_version(connection, skill_id, version)

    async def versions(self, skill_id: str, *, before: int | None = None, limit: int | None = None) -> list[Version]:
        table = schema.versions
        query = select(table.c.body).where(table.c.skill_id == skill_id).order_by(table.c.version.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.version < before)
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
        if not entries:
            return
        table = schema.ledger
        last = {(entry.source, entry.path): entry for entry in entries}
        kept = [ledger_row(entry) for entry in last.values() if entry.digest or entry.diagnostics]
        emptied = [key for key, entry in last.items() if not (entry.digest or entry.diagnostics)]
        async with self.writing() as connection:
            for start in range(0, len(kept), KEYS_MAX):
                rows = self.database.insert(table).values(kept[start : start + KEYS_MAX])
                await connection.execute(replacing(rows, table))
            for start in range(0, len(emptied), KEYS_MAX):
                these = tuple_(table.c.source, table.c.path).in_(emptied[start : start + KEYS_MAX])
                await connection.execute(delete(table).where(these))

    async def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        table = schema.leases
        now_s = self.database.clock_s
        taking = self.database.insert(table).values(name=name, holder=holder, until=now_s + ttl_s)
        taking = taking.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "until": now_s + ttl_s},
            where=or_(table.c.holder == holder, table.c.until < now_s),
        )
        async with self.writing() as connection:
            taken = await connection.execute(taking.returning(table.c.name))
            return taken.one_or_none() is not None

    async def release_lease(self, name: str, holder: str) -> None:
        table = schema.leases
        async with self.writing() as connection:
            await connection.execute(delete(table).where((table.c.name == name) & (table.c.holder == holder)))

    async def lease_holder(self, name: str) -> str | None:
        table = schema.leases
        live = (table.c.name == name) & (table.c.until >= self.database.clock_s)
        holders = await self.database.look(select(table.c.holder).where(live))
        return holders[0].holder if holders else None

    async def record(self, invocations: Sequence[Invocation]) -> None:
        await calls.record(self.database, invocations)

    async def invocations(self, query: InvocationQuery) -> list[Invocation]:
        return await calls.find(self.database, query)

    async def expire_invocations(self, before: str, batch: int) -> int:
        return await calls.expire(self.database, before, batch)

    async def usage(self, skill_id: str) -> list[Usage]:
        return await calls.usage(self.database, skill_id)

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]:
        table = schema.vectors
        found: dict[str, bytes] = {}
        async with self.reading() as connection:
            for start in range(0, len(keys), KEYS_MAX):
                query = select(table.c.key, table.c.vector).where(
                    (table.c.model == model) & table.c.key.in_(keys[start : start + KEYS_MAX])
                )
                found.update((row.key, row.vector) for row in await connection.execute(query))
        return found

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        if not vectors:
            return
        rows = [{"model": model, "key": key, "vector": vector} for key, vector in vectors.items()]
        async with self.writing() as connection:
            for start in range(0, len(rows), KEYS_MAX):
                some = self.database.insert(schema.vectors).values(rows[start : start + KEYS_MAX])
                await connection.execute(some.on_conflict_do_nothing())

    async def secret(self, name: str) -> bytes:
        table = schema.secrets
        made = self.database.insert(table).values(name=name, value=secrets.token_bytes(_SECRET_BYTES))
        async with self.writing() as connection:
            # Whoever comes second waits for the first one's row, and finds it.
            await connection.execute(made.on_conflict_do_nothing())
            found = await connection.execute(select(table.c.value).where(table.c.name == name))
            return bytes(found.scalar_one())

    async def tool_ranking(self) -> tuple[str, ...]:
        table = schema.documents
        async with self.reading() as connection:
            body = await connection.scalar(select(table.c.body).where(table.c.name == ranking.NAME))
        return ranking.read(body)

    async def rank_tools(self, names: Sequence[str]) -> int:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, int]:
            plan = await publishing.open_plan(connection, self.epoch, {ranking.OWNER})
            return plan, ranking.put(plan, names)

        return await self.database.commit(planned)

    async def note_reload(self, kind: ReloadKind, skill_id: str | None, by: str, counts: dict[str, int]) -> int:
        async def planned(connection: AsyncConnection) -> tuple[WritePlan, int]:
            plan = await publishing.open_plan(connection, self.epoch, {reloads.owner_of(skill_id)})
            return plan, reloads.put(plan, kind, skill_id, by, counts)

        return await self.database.commit(planned)

    def _of_version(
        self, skill_id: str, which: Callable[[Skill], int], rule: Callable[[WritePlan, Skill, Version], Published]
    ) -> PlanFor[Published]:
        """A write that `rule` makes of a skill and that one of its versions."""

        async def planned(connection: AsyncConnection) -> tuple[WritePlan, Published]:
            plan, skill = await self._to_keep(connection, skill_id)
            return plan, rule(plan, skill, await publishing.read_version(connection, skill_id, which(skill)))

        return planned

    async def _to_keep(self, connection: AsyncConnection, skill_id: str) -> tuple[WritePlan, Skill]:
        """An empty plan and the skill it is for. Raises `NotFound`, also for one that was removed."""
        plan, skills = await publishing.read_for_write(connection, self.epoch, {skill_id})
        skill = skills.get(skill_id)
        if skill is None or skill.status == "removed":
            raise NotFound(f"there is no skill {skill_id}", skill=skill_id)
        return plan, skill

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """`Database.reading`, for the stores beside this one."""
        async with self.database.reading() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """`Database.writing`, for the stores beside this one."""
        async with self.database.writing() as connection:
            yield connection

    async def commit(self, plan_for: PlanFor[Answer]) -> Answer:
        """`Database.commit`, for the stores beside this one."""
        return await self.database.commit(plan_for)


def _database(url: str) -> Database:
    """Raises `Unavailable` for what this store cannot open, and never shows more of it than its scheme."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Unavailable(_URLS) from error
    if parsed.drivername == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise Unavailable(f"{_URLS}: PATH is missing")
        return SqliteDatabase(parsed)
    if parsed.drivername != "postgresql":
        raise Unavailable(f"{_URLS}, not {parsed.drivername}://...")
    try:
        # An extra: only whoever has such a URL needs it installed.
        from services.storage.postgres import PostgresDatabase  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise Unavailable("PostgreSQL needs the extra `postgres`: install skillwire[postgres]") from error
    return PostgresDatabase(parsed)


def _position(row: Row[Any]) -> Position:
    return Position(row.epoch, row.seq, change_id(row.epoch, row.seq, row.hash))
