"""A plan as one DynamoDB transaction: everything in it is written, and the log's end moved, or nothing is."""

import secrets
from typing import Any

import msgspec

from services.models import Skill
from services.storage.dynamodb_items import PARTS_MAX, pack, to_item, updating
from services.storage.dynamodb_reads import PARTS_NAMESPACE
from services.storage.dynamodb_tables import HEAD_KEY, Tables
from services.storage.plan import Row, WritePlan

# Keys of the state table: a run itself, all by when they expire, and those that work.
RUN, RUN_EXPIRY, RUNS_WORKING = "run", "runs.expiry", "runs.working"


def transaction(tables: Tables, plan: WritePlan, prefix: str) -> list[dict[str, Any]]:
    """What `TransactWriteItems` is given. Raises `TooLarge`."""
    items = [_end(tables.changes, plan)]
    for row in plan.changes:
        items += _with_parts(tables.changes, row, {"ns": PARTS_NAMESPACE, "seq": row["seq"] * PARTS_MAX}, "seq")
    for row in plan.versions:
        first = {"skill_id": f"{row['skill_id']}.parts", "version": row["version"] * PARTS_MAX}
        items += _with_parts(tables.versions, row, first, "version")
    at = plan.changes[-1]["at"] if plan.changes else ""
    for id_, row in plan.skills.items():
        shown = {name: value for name, value in row.items() if name != "id"} | _readable(plan.states[id_], at, prefix)
        items.append({"Update": {"TableName": tables.skills, **updating(to_item({"skill_id": id_}), shown)}})
    items += [_put(tables.state, _ledger_item(row)) for row in plan.ledger.values()]
    for row in plan.stream_rows():
        key = f"{row['owner']}/{row['topic']}/{row['visibility']}"
        items.append(_put(tables.state, {"pk": "streams", "sk": key, "change_id": row["change_id"]}))
    for row in plan.solutions:
        items.append(_put(tables.state, {"pk": f"solutions#{row['incident']}", "sk": row["id"], **row}))
    incidents: dict[str, Row] = {row["incident"]: {"solved": True} for row in plan.solutions}
    for id_, level in plan.levels.items():
        incidents.setdefault(id_, {})["level"] = level
    for id_, change in incidents.items():
        marked = updating(to_item({"pk": "incidents", "sk": id_}), change)
        items.append({"Update": {"TableName": tables.state, **marked}})
    for row in plan.runs.values():
        items += _run_items(tables.state, row)
    items += [_put(tables.state, {"pk": "documents", "sk": name, **row}) for name, row in plan.documents.items()]
    return items


def _run_items(table: str, row: Row) -> list[dict[str, Any]]:
    """The run and its further parts, the latter never overwritten; one item by which it is found when it
    expires, and while it works one by which that is known."""
    id_, parts = row["id"], pack(row["body"])
    made = secrets.token_hex(8)
    whole = {**row, "pk": f"run#{id_}", "sk": RUN, "recent": f"runs#{row['principal']}", "recent_at": id_}
    items = [_put(table, {**whole, "body": parts[0], "parts": len(parts), "made": made})]
    for part, body in enumerate(parts[1:], start=1):
        items.append(_put(table, {"pk": f"run#{id_}", "sk": f"{made}.{part}", "body": body}))
    items.append(_put(table, {"pk": RUN_EXPIRY, "sk": f"{row['expires_at']}#{id_}"}))
    key = {"pk": RUNS_WORKING, "sk": id_}
    if row["status"] == "working":
        items.append(_put(table, key))
    else:
        items.append({"Delete": {"TableName": table, "Key": to_item(key)}})
    return items


def _readable(skill: Skill, at: str, prefix: str) -> Row:
    """The attributes of a skill for whoever looks into the table; nothing of ours reads them."""
    active = skill.active
    frontmatter = active.frontmatter if active else {}
    tags = frontmatter.get("tags")
    made = {"created_at": at} if skill.last_version == 1 else {}
    return {
        **made,
        "updated_at": at,
        "description": active.description if active else None,
        "version": f"v{active.version}" if active else None,
        "s3_key": f"{prefix}{skill.id}/v{active.version}/" if active else None,
        "manifest_json": msgspec.json.encode(active.manifest).decode() if active else None,
        "author": active.created_by if active else None,
        "tags": [str(tag) for tag in tags] if isinstance(tags, list) else None,
    }


def _end(table: str, plan: WritePlan) -> dict[str, Any]:
    """The log's end, if it is where the plan assumes; only looked at by a plan without rows."""
    values = to_item({":seq": plan.assumed.seq, ":hash": plan.assumed.hash})
    condition = {
        "TableName": table,
        "Key": HEAD_KEY,
        "ConditionExpression": "#end = :seq AND #hash = :hash",
        "ExpressionAttributeNames": {"#end": "end", "#hash": "hash"},
    }
    if not plan.changes:
        return {"ConditionCheck": {**condition, "ExpressionAttributeValues": values}}
    values |= to_item({":to": plan.end.seq, ":tohash": plan.end.hash})
    return {
        "Update": {
            **condition,
            "UpdateExpression": "SET #end = :to, #hash = :tohash",
            "ExpressionAttributeValues": values,
        }
    }


def _with_parts(table: str, row: Row, first: Row, number: str) -> list[dict[str, Any]]:
    """A row whose body may go on in further items, whose keys count on from `first`."""
    parts = pack(row["body"])
    puts = [_put(table, {**row, "body": parts[0], "parts": len(parts)})]
    puts += [
        _put(table, {**first, number: first[number] + part, "body": body})
        for part, body in enumerate(parts[1:], start=1)
    ]
    return puts


def _ledger_item(row: Row) -> Row:
    return {"pk": f"ledger#{row['source']}", "sk": row["path"], **row}


def _put(table: str, row: Row) -> dict[str, Any]:
    return {"Put": {"TableName": table, "Item": to_item(row)}}
