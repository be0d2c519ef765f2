"""Incidents and solutions in the tables of the DynamoDB store."""

from collections.abc import AsyncIterator, Mapping, Sequence
from heapq import nlargest
from typing import Any

import msgspec

from services.errors.nouns import Incident, IncidentQuery, KnownIncidents, Level, Solution
from services.failures import NotFound
from services.models import Visibility
from services.storage import incident_rules
from services.storage.aws import Refusal, together
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_appender import Skills, Write
from services.storage.dynamodb_items import Item, to_item, to_row, to_value
from services.storage.dynamodb_tables import RECENT_INDEX
from services.storage.plan import WritePlan

_CONDITION = "ConditionalCheckFailedException"
_RECENT = "incidents"


class DynamoIncidents:
    """`IncidentStore` over an open store, whose tables and appender it shares; nothing to close."""

    def __init__(self, store: DynamoStore) -> None:
        self._store = store
        self._reads = store.reads
        self._table = store.reads.tables.state

    async def record(self, incidents: Sequence[Incident]) -> list[Incident]:
        answers = {incident.id: await self._record(incident) for incident in incidents}
        return [*answers.values()]

    async def _record(self, incident: Incident) -> Incident:
        row = msgspec.structs.asdict(incident)
        kept = {name: value for name, value in row.items() if name not in ("id", "count", "last_at", "first_at")}
        kept |= {"first_at": incident.first_at, "last_at": incident.last_at, "recent": _RECENT}
        kept["recent_at"] = f"{incident.last_at}#{incident.id}"
        counted = await self._counted(incident.id, kept, incident.count)
        # What DynamoDB cannot say in the same breath: the earlier and the later of two stamps.
        if counted["first_at"] > incident.first_at:
            counted = await self._later(incident.id, {"first_at": incident.first_at}, "first_at > :first_at") or counted
        if counted["last_at"] < incident.last_at:
            stamps = {"last_at": incident.last_at, "recent_at": kept["recent_at"]}
            counted = await self._later(incident.id, stamps, "last_at < :last_at") or counted
        return _incident(counted)

    async def incident(self, incident_id: str) -> Incident:
        row = await self._reads.get(self._table, _key(incident_id))
        if row is None:
            raise NotFound(f"there is no incident {incident_id}", incident=incident_id)
        return _incident(row)

    async def incidents(self, query: IncidentQuery) -> list[Incident]:
        """From the index, which may be moments behind."""
        last = "~" if query.after is None else "#".join(query.after)
        found: list[Incident] = []
        async for item in self._reads.query(
            self._table,
            "recent = :recent AND recent_at < :last",
            {":recent": _RECENT, ":last": last},
            IndexName=RECENT_INDEX,
            ScanIndexForward=False,
        ):
            incident = _incident(to_row(item))
            if query.error_class in (None, incident.error_class):
                found.append(incident)
            if len(found) >= query.limit:
                break
        return found

    async def known(self, solved_max: int) -> KnownIncidents:
        found = [
            to_row(item)
            async for item in self._reads.query(
                self._table,
                "pk = :pk",
                {":pk": _RECENT, ":none": "none", ":yes": True},
                FilterExpression="#level <> :none OR solved = :yes",
                ExpressionAttributeNames={"#level": "level"},
            )
        ]
        solved = [_incident(row) for row in found if row.get("solved")]
        return KnownIncidents(
            [_incident(row) for row in found if row["level"] != "none"],
            nlargest(solved_max, solved, key=lambda incident: incident.last_at),
        )

    async def solutions(self, incident_ids: Sequence[str]) -> list[Solution]:
        lists = await together(self._solutions, list(dict.fromkeys(incident_ids)))
        return [solution for some in lists for solution in some]

    async def _solutions(self, incident_id: str) -> list[Solution]:
        found: AsyncIterator[Item] = self._reads.query(self._table, "pk = :pk", {":pk": f"solutions#{incident_id}"})
        return [_solution(to_row(item)) async for item in found]

    async def add_solution(self, solution: Solution, owner: str, visibility: Visibility) -> int:
        async def rule(plan: WritePlan, _skills: Skills) -> int:
            incident = await self.incident(solution.incident)
            count = len(await self._solutions(incident.id))
            count += sum(row["incident"] == incident.id for row in plan.solutions)
            return incident_rules.add_solution(plan, incident, count, solution, owner, visibility)

        return await self._store.commit(Write(frozenset({owner}), frozenset(), rule))

    async def count_outcome(self, incident_id: str, solution_id: str, worked: bool) -> Solution:
        try:
            answer = await self._reads.dynamodb.call(
                "update_item",
                idempotent=False,
                TableName=self._table,
                Key=to_item({"pk": f"solutions#{incident_id}", "sk": solution_id}),
                UpdateExpression="ADD tried :one, worked :worked",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeValues=to_item({":one": 1, ":worked": int(worked)}),
                ReturnValues="ALL_NEW",
            )
        except Refusal as refusal:
            if refusal.code != _CONDITION:
                raise
            raise NotFound(f"this incident has no solution {solution_id}", solution=solution_id) from refusal
        return _solution(to_row(answer["Attributes"]))

    async def mark(
        self, incident_id: str, level: Level, by: str, owner: str, visibility: Visibility
    ) -> tuple[Incident, int]:
        async def rule(plan: WritePlan, _skills: Skills) -> tuple[Incident, int]:
            incident = await self.incident(incident_id)
            return incident_rules.mark(plan, incident, level, by, owner, visibility)

        return await self._store.commit(Write(frozenset({owner}), frozenset(), rule))

    async def _counted(self, incident_id: str, row: Mapping[str, Any], count: int) -> dict[str, Any]:
        names = {f"#{name}": name for name in row}
        sets = ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in row)
        answer = await self._reads.dynamodb.call(
            "update_item",
            idempotent=False,
            TableName=self._table,
            Key=_key(incident_id),
            UpdateExpression=f"SET {sets} ADD #count :count",
            ExpressionAttributeNames={**names, "#count": "count"},
            ExpressionAttributeValues={":count": to_value(count)} | {f":{name}": to_value(row[name]) for name in row},
            ReturnValues="ALL_NEW",
        )
        return to_row(answer["Attributes"])

    async def _later(self, incident_id: str, stamps: Mapping[str, str], condition: str) -> dict[str, Any] | None:
        try:
            answer = await self._reads.dynamodb.call(
                "update_item",
                TableName=self._table,
                Key=_key(incident_id),
                UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in stamps),
                ConditionExpression=condition,
                ExpressionAttributeValues=to_item({f":{name}": stamp for name, stamp in stamps.items()}),
                ReturnValues="ALL_NEW",
            )
        except Refusal as refusal:
            if refusal.code != _CONDITION:
                raise
            return None  # another occurrence was recorded in between, and is as early or late
        return to_row(answer["Attributes"])


def _key(incident_id: str) -> Item:
    return to_item({"pk": _RECENT, "sk": incident_id})


def _incident(row: Mapping[str, Any]) -> Incident:
    return Incident(**{name: row["sk" if name == "id" else name] for name in Incident.__struct_fields__})


def _solution(row: Mapping[str, Any]) -> Solution:
    return Solution(**{name: row[name] for name in Solution.__struct_fields__})
