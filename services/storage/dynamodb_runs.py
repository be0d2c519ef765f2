"""Runs in the tables of the DynamoDB store."""

from collections.abc import Mapping
from typing import Any

from services.failures import NotFound, Unavailable
from services.runs.nouns import Run, RunQuery
from services.storage import run_rules
from services.storage.aws import together
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_appender import Skills, Write
from services.storage.dynamodb_items import to_item, to_row, unpack
from services.storage.dynamodb_plan import RUN, RUN_EXPIRY, RUNS_WORKING
from services.storage.dynamodb_reads import Torn
from services.storage.dynamodb_tables import RECENT_INDEX
from services.storage.plan import WritePlan
from services.storage.run_rules import Rule

_READS_MAX = 5


class DynamoRuns:
    """`RunStore` over an open store, whose tables and appender it shares; nothing to close."""

    def __init__(self, store: DynamoStore) -> None:
        self._store = store
        self._reads = store.reads
        self._table = store.reads.tables.state

    async def create(self, run: Run) -> Run:
        async def rule(plan: WritePlan, _: Skills) -> Run:
            return run_rules.put(plan, run)

        return await self._store.commit(Write(frozenset({run_rules.owner_of(run)}), frozenset(), rule))

    async def run(self, run_id: str) -> Run:
        for _ in range(_READS_MAX):
            try:
                found = await self._find(run_id)
            except Torn:
                continue
            if found is None:
                raise NotFound("there is no such run", run=run_id)
            return found
        raise Unavailable("this run changes faster than it can be read; try again")

    async def change(self, run_id: str, rule: Rule) -> Run:
        owner = run_rules.owner_of(await self.run(run_id))

        async def change(plan: WritePlan, _: Skills) -> Run:
            planned = plan.runs.get(run_id)
            before = run_rules.read(planned["body"]) if planned else await self.run(run_id)
            return run_rules.changed(plan, before, rule)

        return await self._store.commit(Write(frozenset({owner}), frozenset(), change))

    async def runs(self, query: RunQuery) -> list[Run]:
        """From the index, which may be moments behind."""
        found: list[Run] = []
        async for item in self._reads.query(
            self._table,
            "recent = :recent AND recent_at < :before",
            {":recent": f"runs#{query.principal}", ":before": query.before or "~"},
            IndexName=RECENT_INDEX,
            ScanIndexForward=False,
        ):
            found.append(await self.run(to_row(item)["id"]))
            if len(found) >= query.limit:
                break
        return found

    async def working(self) -> list[Run]:
        ids = [to_row(item)["sk"] async for item in self._reads.query(self._table, "pk = :pk", {":pk": RUNS_WORKING})]
        found = await together(self._find, ids)
        return [run for run in found if run is not None and run.status == "working"]

    async def expire_runs(self, before: str, batch: int) -> int:
        keys: list[str] = []
        condition, values = "pk = :pk AND sk < :before", {":pk": RUN_EXPIRY, ":before": before}
        async for item in self._reads.query(self._table, condition, values, Limit=batch):
            keys.append(to_row(item)["sk"])
            if len(keys) == batch:
                break
        for key in keys:
            await self._remove(key)
        return len(keys)

    async def _remove(self, expiry: str) -> None:
        """What it is found by last: a removal that is cut short is done again."""
        run_id = expiry.partition("#")[2]
        query = self._reads.query(self._table, "pk = :pk", {":pk": f"run#{run_id}"}, ProjectionExpression="pk, sk")
        doomed = [item async for item in query]
        for key in (*doomed, to_item({"pk": RUNS_WORKING, "sk": run_id}), to_item({"pk": RUN_EXPIRY, "sk": expiry})):
            await self._reads.write_many(self._table, [{"DeleteRequest": {"Key": key}}])

    async def _find(self, run_id: str) -> Run | None:
        """Raises `Torn` when it changed between the reads of its parts."""
        row = await self._reads.get(self._table, to_item({"pk": f"run#{run_id}", "sk": RUN}))
        return None if row is None else run_rules.read(await self._body(row))

    async def _body(self, row: Mapping[str, Any]) -> bytes:
        keys = [to_item({"pk": row["pk"], "sk": f"{row['made']}.{part}"}) for part in range(1, row["parts"])]
        found = {part["sk"]: part["body"] for part in await self._reads.get_many(self._table, keys)}
        if len(found) != len(keys):
            raise Torn("a run was removed while it was read")
        return unpack([row["body"], *(body for _, body in sorted(found.items()))])
