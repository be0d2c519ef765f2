"""Blobs as rows of the store's database, for replicas that share no disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path

from sqlalchemy import delete, func, select, update

from services.failures import NotFound, Unavailable
from services.ports import Swept
from services.storage import schema
from services.storage.folder import write_folder
from services.storage.sql import SqlStore

# What one statement carries, unless one blob alone is more; within the database's write timeout.
_STATEMENT_BYTES_MAX = 4 * 1024 * 1024
_STATEMENT_ROWS_MAX = 128


class TableBlobs:
    """`BlobStore` over an open store, whose connections it shares; nothing to close."""

    def __init__(self, store: SqlStore) -> None:
        self._database = store.database

    async def close(self) -> None:
        """Nothing: the store is whoever opened it closes it."""

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        table = schema.blobs
        now_s = self._database.clock_s
        there: set[str] = set()
        async with self._database.writing() as connection:
            for names in _slices(sorted(blobs)):
                # Locked in the order of their names, so that two replicas never wait for each other in a ring.
                these = select(table.c.sha256).where(table.c.sha256.in_(names)).order_by(table.c.sha256)
                touched = update(table).where(table.c.sha256.in_(these.with_for_update())).values(touched_at=now_s)
                there.update(await connection.scalars(touched.returning(table.c.sha256)))
        missing = {name: blobs[name] for name in sorted(blobs) if name not in there}
        for some in _batches(missing):
            rows = [{"sha256": name, "body": body, "touched_at": now_s} for name, body in some.items()]
            async with self._database.writing() as connection:
                await connection.execute(self._database.insert(table).values(rows).on_conflict_do_nothing())

    async def has(self, sha256: str) -> bool:
        table = schema.blobs
        touched = update(table).where(table.c.sha256 == sha256).values(touched_at=self._database.clock_s)
        async with self._database.writing() as connection:
            return (await connection.execute(touched)).rowcount == 1

    async def get(self, sha256: str) -> bytes:
        return (await self._read([sha256]))[sha256]

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        contents = await self._read(set(files.values()))
        await asyncio.to_thread(write_folder, [(path, contents[sha256]) for path, sha256 in files.items()], target)

    async def remove_leftovers(self) -> int:
        """Nothing is ever half written: 0."""
        return 0

    async def ping(self) -> None:
        """Nothing: they are there when the database is, which says so itself."""

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        table = schema.blobs
        is_old = table.c.touched_at < self._database.clock_s - older_than_s
        async with self._database.reading() as connection:
            unused = set(await connection.scalars(select(table.c.sha256).where(is_old)))
        async for sha256 in in_use():
            unused.discard(sha256)
        removed = size = 0
        for names in _slices(sorted(unused)):
            # The age is looked at again when the row is locked: whoever touches it comes before or finds none.
            these = select(table.c.sha256).where(table.c.sha256.in_(names) & is_old).order_by(table.c.sha256)
            removing = delete(table).where(table.c.sha256.in_(these.with_for_update()) & is_old)
            async with self._database.writing() as connection:
                sizes = (await connection.scalars(removing.returning(func.length(table.c.body)))).all()
            removed, size = removed + len(sizes), size + sum(sizes)
        return Swept(removed, size)

    async def _read(self, names: Collection[str]) -> dict[str, bytes]:
        """Verified bytes of all of them, which the caller has room for."""
        table = schema.blobs
        found: dict[str, bytes] = {}
        async with self._database.reading() as connection:
            for some in _slices(sorted(names)):
                rows = await connection.execute(select(table.c.sha256, table.c.body).where(table.c.sha256.in_(some)))
                found.update((row.sha256, bytes(row.body)) for row in rows)
        for name in names:
            if name not in found:
                raise NotFound(f"there is no blob {name}")
            if hashlib.sha256(found[name]).hexdigest() != name:
                raise Unavailable(f"the blob {name} is damaged in the database", code="damaged")
        return found


def _slices(names: list[str]) -> Iterator[list[str]]:
    return (names[start : start + _STATEMENT_ROWS_MAX] for start in range(0, len(names), _STATEMENT_ROWS_MAX))


def _batches(blobs: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """In order, within the bounds of a statement."""
    batch: dict[str, bytes] = {}
    size = 0
    for name, body in blobs.items():
        if batch and (size + len(body) > _STATEMENT_BYTES_MAX or len(batch) == _STATEMENT_ROWS_MAX):
            yield batch
            batch, size = {}, 0
        batch[name] = body
        size += len(body)
    if batch:
        yield batch
