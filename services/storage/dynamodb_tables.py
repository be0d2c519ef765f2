"""The tables of the DynamoDB store: `skillwire init-storage` makes them, a replica looks whether they are there.

| table | key | what |
|---|---|---|
| `mcp-skills` | `skill_id` | a skill: the attributes that read well, and counters; index `status-index` |
| `mcp-skills-versions` | `skill_id`, `version` | versions, and at `<skill_id>.parts` what is too large for one item |
| `mcp-skills-changes` | `ns`, `seq` | the change log; at seq 0 its end, which every write compares and sets |
| `mcp-skills-state` | `pk`, `sk` | streams, ledgers, leases, secrets, vectors, usage, incidents, solutions |
| `mcp-invocation-logs` | `skill_id`, `invoked_at` | invocations with TTL `expires_at`; index `time-index` |
"""

import asyncio
import secrets
from typing import Any, NamedTuple

from services.failures import Unavailable
from services.storage.aws import AwsPlace, Refusal, Service
from services.storage.dynamodb_items import to_item
from services.storage.plan import GENESIS, NAMESPACE

STATUS_INDEX = "status-index"
TIME_INDEX = "time-index"
RECENT_INDEX = "recent-index"
# By the newest of which all invocations are listed: one partition takes 1,000 writes a second.
TIME_SHARDS = 8
# Of what stands in the tables; a replica refuses another one.
TABLES_VERSION = 1
_MADE_S = 120.0
_LOOK_S = 0.2
HEAD_KEY = to_item({"ns": NAMESPACE, "seq": 0})


class Tables(NamedTuple):
    """Their names in this deployment."""

    skills: str
    versions: str
    changes: str
    state: str
    invocations: str

    @classmethod
    def of(cls, place: AwsPlace) -> "Tables":
        first = place.skills_table
        return cls(first, f"{first}-versions", f"{first}-changes", f"{first}-state", place.invocations_table)


def definitions(tables: Tables) -> list[dict[str, Any]]:
    """What `CreateTable` is given, one each; paid by request."""
    return [
        _table(tables.skills, "skill_id:S", indexes={STATUS_INDEX: ("status:S", "updated_at:S")}),
        _table(tables.versions, "skill_id:S", "version:N"),
        _table(tables.changes, "ns:S", "seq:N"),
        _table(tables.state, "pk:S", "sk:S", indexes={RECENT_INDEX: ("recent:S", "recent_at:S")}),
        _table(tables.invocations, "skill_id:S", "invoked_at:S", indexes={TIME_INDEX: ("shard:S", "id:S")}),
    ]


async def make_tables(dynamodb: Service, tables: Tables) -> list[str]:
    """Makes what is missing and answers its names; returns when all can be used."""
    made = []
    for definition in definitions(tables):
        try:
            await dynamodb.call("create_table", **definition)
        except Refusal as refusal:
            if refusal.code != "ResourceInUseException":
                raise
        else:
            made.append(definition["TableName"])
    try:
        async with asyncio.timeout(_MADE_S):
            for name in tables:
                while not await _is_active(dynamodb, name):  # noqa: ASYNC110  # the event is AWS's
                    await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise Unavailable(f"the tables are not there after {_MADE_S:g} s") from error
    await _expire(dynamodb, tables.invocations)
    await make_head(dynamodb, tables)
    return made


async def make_head(dynamodb: Service, tables: Tables) -> None:
    """The end of a log that has no row yet, unless there is one."""
    head = {
        "ns": NAMESPACE,
        "seq": 0,
        "end": 0,
        "hash": GENESIS,
        "epoch": secrets.token_hex(4),
        "schema": TABLES_VERSION,
    }
    try:
        await dynamodb.call(
            "put_item", TableName=tables.changes, Item=to_item(head), ConditionExpression="attribute_not_exists(ns)"
        )
    except Refusal as refusal:
        if refusal.code != "ConditionalCheckFailedException":
            raise


async def _is_active(dynamodb: Service, name: str) -> bool:
    answer = await dynamodb.call("describe_table", TableName=name)
    return bool(answer["Table"]["TableStatus"] == "ACTIVE")


async def _expire(dynamodb: Service, name: str) -> None:
    found = await dynamodb.call("describe_time_to_live", TableName=name)
    if found["TimeToLiveDescription"]["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
        return
    await dynamodb.call(
        "update_time_to_live",
        TableName=name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"},
    )


def _table(name: str, *key: str, indexes: dict[str, tuple[str, str]] | None = None) -> dict[str, Any]:
    """`key` is `attribute:type`, partition first."""
    indexes = indexes or {}
    attributes = dict(part.split(":") for part in (*key, *(part for pair in indexes.values() for part in pair)))
    definition: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": _schema(key),
        "AttributeDefinitions": [{"AttributeName": part, "AttributeType": kind} for part, kind in attributes.items()],
    }
    if indexes:
        definition["GlobalSecondaryIndexes"] = [
            {"IndexName": index, "KeySchema": _schema(parts), "Projection": {"ProjectionType": "ALL"}}
            for index, parts in indexes.items()
        ]
    return definition


def _schema(parts: tuple[str, ...]) -> list[dict[str, str]]:
    return [
        {"AttributeName": part.partition(":")[0], "KeyType": kind}
        for part, kind in zip(parts, ("HASH", "RANGE"), strict=False)
    ]
