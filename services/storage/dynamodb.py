"""The metadata store on DynamoDB, for replicas on any machines; needs the extra `aws`.

The rules of every write are those of the SQL store (`publishing.py`): only how a plan is committed
and how rows are read differs. `docs/decisions/0020-log-on-dynamodb.md` says why it is done so.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from services.failures import NotFound, Unavailable
from services.models import Change, Diagnostic, Draft, Invocation, LedgerEntry, Published, Skill, Usage, Version
from services.ports import CatalogSnapshot, InvocationQuery, Position, ReloadKind
from services.storage import adoption, publishing, ranking, reloads, upkeep
from services.storage import dynamodb_removal as removal
from services.storage.aws import AwsPlace, Refusal, open_service, server_time_s
from services.storage.dynamodb_appender import Answer, Appender, Skills, Write, kept, write_for
from services.storage.dynamodb_invocations import Invocations
from services.storage.dynamodb_items import Item, to_item, to_row, to_value
from services.storage.dynamodb_reads import Head, Reads, Torn
from services.storage.dynamodb_tables import HEAD_KEY
from services.storage.plan import NAMESPACE, WritePlan, change_id, in_epoch, ledger_row

_SECRET_BYTES = 32
_SNAPSHOTS_MAX = 5
_CONDITION = "ConditionalCheckFailedException"


class DynamoStore:
    """`MetadataStore` on the tables of one deployment; open it with `DynamoStore.open`, end it with `close`."""

    def __init__(self, stack: AsyncExitStack, reads: Reads, invocations: Invocations) -> None:
        self._stack = stack
        self.reads = reads
        self._invocations = invocations
        self._appender = Appender(reads)
        # The newest row as it was last read: what an idle replica asks for again and again.
        self._newest: Change | None = None

    @classmethod
    async def open(cls, place: AwsPlace) -> "DynamoStore":
        """Raises `Unavailable` with the reason, such as tables that are missing."""
        async with AsyncExitStack() as stack:
            reads = Reads(await open_service(stack, "dynamodb", place), place)
            await reads.head()
            store = cls(stack.pop_all(), reads, Invocations(reads, place.invocation_days))
        store._appender.start()
        return store

    async def close(self) -> None:
        try:
            await self._appender.close()
        finally:
            await self._stack.aclose()

    async def commit(self, write: Write[Answer]) -> Answer:
        """`Appender.commit`, for the stores beside this one."""
        return await self._appender.commit(write)

    async def head(self) -> Position:
        return _position(await self.reads.head())

    async def tail(self, after: int, limit: int) -> list[Change]:
        # The end first: rows up to it are all there then, and their epoch is the one it had.
        head = await self.reads.head()
        position = _position(head)
        if after >= position.seq:
            return []
        if self._newest is not None and after == position.seq - 1 and self._newest.id == position.id:
            return [self._newest]
        changes = await self._rows(head, after, limit)
        if changes and changes[-1].id == position.id:
            self._newest = changes[-1]
        return changes

    async def snapshot(self) -> CatalogSnapshot:
        for _ in range(_SNAPSHOTS_MAX):
            try:
                found = await self._snapshot()
            except Torn:
                continue
            if found is not None:
                return found
        raise Unavailable("the catalog changes faster than it can be read; try again")

    async def _snapshot(self) -> CatalogSnapshot | None:
        """A scan is no snapshot. What was committed while it went on is in the log, with the whole
        skill in each row, and is laid over it; None when the log was trimmed meanwhile."""
        before = await self.reads.head()
        rows = [
            to_row(item)
            async for page in self.reads.dynamodb.pages("scan", TableName=self.reads.tables.skills, ConsistentRead=True)
            for item in page["Items"]
        ]
        streams = await self.reads.streams()
        after = await self.reads.head()
        position = _position(after)
        newest = {stream: in_epoch(after.epoch, id_) for stream, id_ in streams.items()}
        skills: Skills = {}
        meanwhile = await self._rows(after, before.end.seq, after.end.seq - before.end.seq)
        if len(meanwhile) < after.end.seq - before.end.seq:
            return None
        for change in meanwhile:
            newest[change.topic, change.owner, change.visibility] = change.id
            if change.skill is not None:
                skills[change.skill.id] = change.skill
        untouched = [row for row in rows if row["skill_id"] not in skills]
        skills |= await self.reads.with_active(untouched)
        return CatalogSnapshot(position, [skill for skill in skills.values() if skill.status != "removed"], newest)

    async def _rows(self, head: Head, after: int, limit: int) -> list[Change]:
        items: list[Item] = []
        if limit > 0:
            condition = "ns = :ns AND seq BETWEEN :first AND :last"
            values = {":ns": NAMESPACE, ":first": after + 1, ":last": head.end.seq}
            async for item in self.reads.query(self.reads.tables.changes, condition, values, Limit=min(limit, 1000)):
                items.append(item)
                if len(items) == limit:
                    break
        return await self.reads.read_rows(head.epoch, items)

    async def fence(self, old_epoch: str) -> Position:
        try:
            await self.reads.dynamodb.call(
                "update_item",
                TableName=self.reads.tables.changes,
                Key=HEAD_KEY,
                UpdateExpression="SET epoch = :new",
                ConditionExpression="epoch = :old",
                ExpressionAttributeValues=to_item({":new": secrets.token_hex(4), ":old": old_epoch}),
            )
        except Refusal as refusal:
            # Compared and set: of all replicas that notice at once, one does it.
            if refusal.code != _CONDITION:
                raise
        return await self.head()

    async def trim(self, keep_rows: int, batch: int, *, sealed: int) -> int:
        return await removal.trim(self.reads, keep_rows, batch, sealed)

    async def publish(self, drafts: Sequence[Draft]) -> list[Published]:
        async def rule(plan: WritePlan, skills: Skills) -> list[Published]:
            return [publishing.publish(plan, skills, draft) for draft in drafts]

        return await self.commit(write_for({draft.skill_id for draft in drafts}, rule))

    async def activate(self, skill_id: str, version: int, by: str) -> Published:
        async def rule(plan: WritePlan, skills: Skills) -> Published:
            if skill_id not in skills:
                raise NotFound(f"there is no skill {skill_id}")
            chosen = await self._version(plan, skill_id, version)
            return publishing.activate(plan, skills[skill_id], chosen, by)

        return await self.commit(write_for({skill_id}, rule))

    async def deactivate(self, skill_id: str, by: str) -> Published:
        async def rule(plan: WritePlan, skills: Skills) -> Published:
            return publishing.deactivate(plan, skills.get(skill_id), skill_id, by)

        return await self.commit(write_for({skill_id}, rule))

    async def restore(self, skill_id: str, by: str) -> Published:
        async def rule(plan: WritePlan, skills: Skills) -> Published:
            skill = kept(skills, skill_id)
            number = upkeep.version_to_restore(skill)
            return upkeep.restore(plan, skill, await self._version(plan, skill_id, number), by)

        return await self.commit(write_for({skill_id}, rule))

    async def remove(self, skill_id: str, by: str) -> Published:
        return await removal.remove(self, skill_id, by)

    async def pin(self, skill_id: str, version: int, pinned: bool, by: str) -> Published:
        async def rule(plan: WritePlan, skills: Skills) -> Published:
            skill = kept(skills, skill_id)
            return upkeep.pin(plan, skill, await self._version(plan, skill_id, version), pinned, by)

        return await self.commit(write_for({skill_id}, rule))

    async def remove_version(self, skill_id: str, version: int, by: str) -> Published:
        return await removal.remove_version(self, skill_id, version, by)

    async def prune_versions(self, skill_id: str, keep: int) -> int:
        return await removal.prune(self, skill_id, keep)

    def blobs_in_use(self) -> AsyncIterator[str]:
        return removal.blobs_in_use(self.reads)

    async def adopt(self, skill: Skill, versions: Sequence[Version]) -> Published:
        async def rule(plan: WritePlan, skills: Skills) -> Published:
            return adoption.adopt(plan, skills.get(skill.id), skill, versions)

        return await self.commit(write_for({skill.id}, rule))

    async def _version(self, plan: WritePlan, skill_id: str, number: int) -> Version:
        """One that is stored, or that an earlier write of the same transaction adds."""
        for row in plan.versions:
            if (row["skill_id"], row["version"]) == (skill_id, number):
                return msgspec.json.decode(row["body"], type=Version)
        return await self.reads.version(skill_id, number)

    async def version(self, skill_id: str, version: int) -> Version:
        return await self.reads.version(skill_id, version)

    async def versions(self, skill_id: str, *, before: int | None = None, limit: int | None = None) -> list[Version]:
        return await self.reads.versions(skill_id, before, limit)

    async def ledger(self, source: str) -> dict[str, LedgerEntry]:
        found = self.reads.query(self.reads.tables.state, "pk = :pk", {":pk": f"ledger#{source}"})
        entries = {}
        async for item in found:
            row = to_row(item)
            diagnostics = msgspec.json.decode(row["diagnostics"], type=tuple[Diagnostic, ...])
            entries[row["path"]] = LedgerEntry(source, row["path"], row["digest"], row.get("skill_id"), diagnostics)
        return entries

    async def note(self, entries: Sequence[LedgerEntry]) -> None:
        requests = []
        for entry in {(entry.source, entry.path): entry for entry in entries}.values():
            key = {"pk": f"ledger#{entry.source}", "sk": entry.path}
            if entry.digest or entry.diagnostics:
                requests.append({"PutRequest": {"Item": to_item({**key, **ledger_row(entry)})}})
            else:
                requests.append({"DeleteRequest": {"Key": to_item(key)}})
        await self.reads.write_many(self.reads.tables.state, requests)

    async def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        table, key = self.reads.tables.state, {"pk": "leases", "sk": name}
        # The clock is the service's, which comes with every answer: DynamoDB has none in its expressions.
        looked = await self.reads.dynamodb.call("get_item", TableName=table, Key=to_item(key), ConsistentRead=True)
        now_s = server_time_s(looked)
        try:
            await self.reads.dynamodb.call(
                "put_item",
                TableName=table,
                Item=to_item({**key, "holder": holder, "until": now_s + ttl_s}),
                ConditionExpression="attribute_not_exists(pk) OR holder = :holder OR #until < :now",
                ExpressionAttributeNames={"#until": "until"},
                ExpressionAttributeValues=to_item({":holder": holder, ":now": now_s}),
            )
        except Refusal as refusal:
            if refusal.code != _CONDITION:
                raise
            return False
        return True

    async def release_lease(self, name: str, holder: str) -> None:
        try:
            await self.reads.dynamodb.call(
                "delete_item",
                TableName=self.reads.tables.state,
                Key=to_item({"pk": "leases", "sk": name}),
                ConditionExpression="holder = :holder",
                ExpressionAttributeValues=to_item({":holder": holder}),
            )
        except Refusal as refusal:
            if refusal.code != _CONDITION:
                raise

    async def lease_holder(self, name: str) -> str | None:
        return await _lease_holder(self.reads, name)

    async def record(self, invocations: Sequence[Invocation]) -> None:
        await self._invocations.record(invocations)

    async def invocations(self, query: InvocationQuery) -> list[Invocation]:
        return await self._invocations.find(query)

    async def expire_invocations(self, before: str, batch: int) -> int:
        return await self._invocations.expire(before, batch)

    async def usage(self, skill_id: str) -> list[Usage]:
        return await self._invocations.usage(skill_id)

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]:
        wanted = [to_item({"pk": f"vectors#{model}", "sk": key}) for key in dict.fromkeys(keys)]
        rows = await self.reads.get_many(self.reads.tables.state, wanted)
        return {row["sk"]: row["vector"] for row in rows}

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        rows = [{"pk": f"vectors#{model}", "sk": key, "vector": vector} for key, vector in vectors.items()]
        await self.reads.write_many(self.reads.tables.state, [{"PutRequest": {"Item": to_item(row)}} for row in rows])

    async def secret(self, name: str) -> bytes:
        table, key = self.reads.tables.state, to_item({"pk": "secrets", "sk": name})
        try:
            await self.reads.dynamodb.call(
                "put_item",
                TableName=table,
                Item={**key, "value": to_value(secrets.token_bytes(_SECRET_BYTES))},
                ConditionExpression="attribute_not_exists(pk)",
            )
        except Refusal as refusal:
            if refusal.code != _CONDITION:
                raise
        found = await self.reads.get(table, key)
        assert found is not None, "nothing removes a secret"
        return bytes(found["value"])

    async def tool_ranking(self) -> tuple[str, ...]:
        found = await self.reads.get(self.reads.tables.state, to_item({"pk": "documents", "sk": ranking.NAME}))
        return ranking.read(None if found is None else found["body"])

    async def rank_tools(self, names: Sequence[str]) -> int:
        return await self.commit(_ranking_write(names))

    async def note_reload(self, kind: ReloadKind, skill_id: str | None, by: str, counts: dict[str, int]) -> int:
        return await self.commit(_reload_write(kind, skill_id, by, counts))


def _position(head: Head) -> Position:
    return Position(head.epoch, head.end.seq, change_id(head.epoch, *head.end))


async def _lease_holder(reads: Reads, name: str) -> str | None:
    key = to_item({"pk": "leases", "sk": name})
    looked = await reads.dynamodb.call("get_item", TableName=reads.tables.state, Key=key, ConsistentRead=True)
    row = to_row(looked.get("Item", {}))
    return str(row["holder"]) if row and row["until"] >= server_time_s(looked) else None


def _ranking_write(names: Sequence[str]) -> Write[int]:
    async def rule(plan: WritePlan, _: Skills) -> int:
        return ranking.put(plan, names)

    return Write(frozenset({ranking.OWNER}), frozenset(), rule)


def _reload_write(kind: ReloadKind, skill_id: str | None, by: str, counts: dict[str, int]) -> Write[int]:
    async def rule(plan: WritePlan, _: Skills) -> int:
        return reloads.put(plan, kind, skill_id, by, counts)

    return Write(frozenset({reloads.owner_of(skill_id)}), frozenset(), rule)
