"""The audit log: what was changed, when and by whom, and where its chain stands."""

from pydantic import Field

from gateway.envelope import Reply, reply
from gateway.operations.table import PAGE_MAX, Context, NoParams, Operation, Params
from gateway.operations.tools import Stamp
from services.audit.nouns import AuditQuery
from services.models import SKILL_ID_PATTERN


class ListAudit(Params):
    limit: int = Field(50, ge=1, le=PAGE_MAX)
    cursor: str | None = Field(None, pattern=r"^[1-9][0-9]{0,15}$", description="`next_cursor` of the page before.")
    skill: str | None = Field(None, max_length=160, pattern=SKILL_ID_PATTERN, description="`owner/name`.")
    by: str | None = Field(None, max_length=200, description="Only what this principal did.")
    kind: str | None = Field(None, max_length=64, pattern=r"^[a-z]+\.[a-z_]+$", examples=["skill.published"])
    topic: str | None = Field(None, max_length=32, pattern=r"^[a-z]+$", examples=["skills"])
    since: Stamp | None = None
    until: Stamp | None = Field(None, description="Only changes made before it.")


async def list_audit(context: Context, params: ListAudit) -> Reply:
    query = AuditQuery(
        params.limit,
        before=int(params.cursor) if params.cursor is not None else None,
        skill=params.skill,
        by=params.by,
        kind=params.kind,
        topic=params.topic,
        since=params.since,
        until=params.until,
    )
    records = await context.replica.audit.audit(query)
    after = str(records[-1].seq) if len(records) == params.limit else None
    sees = context.principal.viewer.sees
    return reply({"items": [record.shown() for record in records if sees(record)], "next_cursor": after})


async def audit_head(context: Context, _: NoParams) -> Reply:
    """`lag` counts the changes that this replica knows and the chain has not; all null before the first record."""
    head = await context.replica.audit.audit_head()
    lag = max(0, context.replica.feed.applied - (head.seq if head else 0))
    if head is None:
        return reply({"seq": None, "hash": None, "sealed_at": None, "keyed": None, "lag": lag})
    keyed = head.key_id != ""
    return reply({"seq": head.seq, "hash": head.hash, "sealed_at": head.sealed_at, "keyed": keyed, "lag": lag})


OPERATIONS = (
    Operation(
        "list_audit",
        "Who changed what and when, newest first.",
        "admin",
        ("GET", "/audit"),
        ListAudit,
        list_audit,
    ),
    Operation(
        "get_audit_head",
        "The newest record of the audit log, to be noted elsewhere.",
        "admin",
        ("GET", "/audit/head"),
        NoParams,
        audit_head,
    ),
)
