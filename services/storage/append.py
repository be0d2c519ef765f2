"""Appending to the change log inside a write transaction.

`ChangeWriter` numbers, chains and links rows; its `finish` moves the counter as the last
statement before the commit. Commit order is then seq order: the counter row is what every
writer must hold to commit, and an auto-increment column would not give that on PostgreSQL
(a transaction may take 1 and commit after 2).
"""

import hashlib
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.clock import utc_now
from services.models import Change, Skill, Visibility
from services.storage import schema

NAMESPACE = "main"
GENESIS = "0" * 64


class ChangeBody(msgspec.Struct, frozen=True):
    """What a row keeps: `data` for subscribers, `skill` for the views."""

    data: msgspec.Raw
    skill: Skill | None = None


def change_id(epoch: str, seq: int, chained: str) -> str:
    return f"{epoch}-{seq}-{chained[:8]}"


def in_epoch(epoch: str, id_: str) -> str:
    """A stored id as it is called now: the log may have been given a new epoch since it was written."""
    return f"{epoch}-{id_.partition('-')[2]}" if id_ else ""


class ChangeWriter:
    """The open end of the log, for one transaction."""

    def __init__(self, connection: AsyncConnection, epoch: str, seq: int, chained: str) -> None:
        self._connection = connection
        self._epoch = epoch
        self._hash = chained
        self._start = seq
        self.seq = seq
        self._streams: dict[tuple[str, str, str], str] = {}
        self._rows: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, connection: AsyncConnection, epoch: str) -> "ChangeWriter":
        """For a connection that already holds the write lock."""
        head = (
            await connection.execute(
                select(schema.change_head.c.seq, schema.change_head.c.hash).where(schema.change_head.c.ns == NAMESPACE)
            )
        ).one()
        return cls(connection, epoch, head.seq, head.hash)

    @property
    def next_seq(self) -> int:
        """What the next row will be numbered; the counter is held, so nobody else can take it."""
        return self.seq + 1

    async def append(
        self,
        *,
        topic: str,
        kind: str,
        dep: str,
        owner: str,
        visibility: Visibility,
        data: dict[str, Any],
        skill: Skill | None = None,
    ) -> int:
        """Adds one row and answers its seq."""
        self.seq += 1
        row: dict[str, Any] = {
            "ns": NAMESPACE,
            "seq": self.seq,
            "prev": await self._newest((topic, owner, visibility)),
            "topic": topic,
            "kind": kind,
            "dep": dep,
            "owner": owner,
            "visibility": visibility,
            "at": utc_now(),
            "body": msgspec.json.encode(ChangeBody(msgspec.Raw(msgspec.json.encode(data)), skill)),
        }
        content = {name: value for name, value in row.items() if name != "body"}
        chained = hashlib.sha256(self._hash.encode())
        chained.update(msgspec.json.encode(content))
        chained.update(row["body"])
        self._hash = row["hash"] = chained.hexdigest()
        self._streams[topic, owner, visibility] = change_id(self._epoch, self.seq, self._hash)
        self._rows.append(row)
        return self.seq

    async def finish(self) -> None:
        """Writes the rows and, last, the counter."""
        if not self._rows:
            return
        await self._connection.execute(insert(schema.changes), self._rows)
        for stream, newest in self._streams.items():
            where = _is_stream(stream)
            moved = await self._connection.execute(update(schema.streams).where(where).values(change_id=newest))
            if moved.rowcount == 0:
                topic, owner, visibility = stream
                await self._connection.execute(
                    insert(schema.streams).values(
                        ns=NAMESPACE, topic=topic, owner=owner, visibility=visibility, change_id=newest
                    )
                )
        moved = await self._connection.execute(
            update(schema.change_head)
            .where((schema.change_head.c.ns == NAMESPACE) & (schema.change_head.c.seq == self._start))
            .values(seq=self.seq, hash=self._hash)
        )
        assert moved.rowcount == 1, "the counter moved under the write lock"

    async def _newest(self, stream: tuple[str, str, str]) -> str:
        if stream not in self._streams:
            found = await self._connection.scalar(select(schema.streams.c.change_id).where(_is_stream(stream)))
            self._streams[stream] = found or ""
        return self._streams[stream]


def _is_stream(stream: tuple[str, str, str]) -> ColumnElement[bool]:
    table = schema.streams
    topic, owner, visibility = stream
    return and_(
        table.c.ns == NAMESPACE, table.c.topic == topic, table.c.owner == owner, table.c.visibility == visibility
    )


def read_change(epoch: str, row: Any) -> Change:
    """A row of `schema.changes` as the rest of the system sees it."""
    body = msgspec.json.decode(row.body, type=ChangeBody)
    return Change(
        id=change_id(epoch, row.seq, row.hash),
        prev=in_epoch(epoch, row.prev),
        seq=row.seq,
        topic=row.topic,
        kind=row.kind,
        dep=row.dep,
        owner=row.owner,
        visibility=row.visibility,
        at=row.at,
        data=bytes(body.data),
        skill=body.skill,
    )
