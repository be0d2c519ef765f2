"""Verifying the audit log: the whole chain, against itself, the change rows that are kept, and heads noted before."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from services.audit.chain import Finding, Seal, compare, head_of, judge
from services.audit.nouns import AuditHead, AuditQuery, AuditRecord
from services.ports import AuditStore, ChangeReader

PAGE = 1000


class Noted(NamedTuple):
    """A head of the chain as it was written down when it was one."""

    seq: int
    hash: str


class Verdict(NamedTuple):
    """What was read, up to the first thing that is wrong; `finding` is None for a chain that is good.

    `keyed_from` is the first record sealed with a key. `unsealed` counts the changes after the head.
    """

    records: int
    first: int
    head: AuditHead | None
    keyed_from: int | None
    unsealed: int
    finding: Finding | None


async def read_all(audit: AuditStore) -> AsyncIterator[list[AuditRecord]]:
    """Every record in pages, oldest first; those that are appended meanwhile too."""
    after = 0
    while page := await audit.audit(AuditQuery(PAGE, after=after)):
        yield page
        after = page[-1].seq


async def verify(
    audit: AuditStore,
    log: ChangeReader,
    by_seal: Seal,
    noted: Sequence[Noted] = (),
    progress: Callable[[int, int], None] = lambda _records, _seq: None,
) -> Verdict:
    """Reads everything; `progress` is told the number of records and the newest seq after each page.

    Replicas may go on meanwhile. Raises `Unavailable`.
    """
    # What the store calls its head now must be in the chain as well, however far that has grown by then.
    newest = await audit.audit_head()
    heads = dict(noted) | ({newest.seq: newest.hash} if newest and newest.seq not in dict(noted) else {})
    records, first, keyed_from = 0, 0, None
    before: AuditHead | None = None
    async for page in read_all(audit):
        first = first or page[0].seq
        finding = await _judge_page(page, before, log, by_seal, heads)
        if finding is not None:
            good = sum(record.seq < finding.seq for record in page)
            return Verdict(records + good, first, before, keyed_from, 0, finding)
        keyed_from = keyed_from or next((record.seq for record in page if record.key_id), None)
        records, before = records + len(page), head_of(page[-1])
        progress(records, before.seq)
    unsealed, finding = await _judge_ends(first, before, audit, log, heads)
    return Verdict(records, first, before, keyed_from, unsealed, finding)


async def _judge_page(
    page: Sequence[AuditRecord], before: AuditHead | None, log: ChangeReader, by_seal: Seal, heads: dict[int, str]
) -> Finding | None:
    first, last = page[0].seq, page[-1].seq
    kept = [change for change in await log.tail(first - 1, len(page)) if change.seq <= last]
    rewritten = (
        Finding(record.seq, "rewritten", "its hash is not the one that was noted")
        for record in page
        if heads.get(record.seq, record.hash) != record.hash
    )
    findings = (judge(page, before, by_seal), compare(page, kept), next(rewritten, None))
    return min((finding for finding in findings if finding is not None), default=None, key=lambda each: each.seq)


async def _judge_ends(
    first: int, last: AuditHead | None, audit: AuditStore, log: ChangeReader, heads: dict[int, str]
) -> tuple[int, Finding | None]:
    """How many changes are not sealed, and what is wrong at either end of the chain."""
    end = last.seq if last else 0
    for seq in sorted(heads):
        if seq > end:
            return 0, Finding(end + 1, "cut", f"the chain ends at {end}, and had reached {seq}")
        if seq < first:
            return 0, Finding(seq, "missing", f"the chain begins at {first}, and {seq} was in it")
    head = await log.head()
    if head.seq < end:
        return 0, Finding(head.seq + 1, "not as the change log has it", f"the log ends at {head.seq}")
    after = await log.tail(end, 1)
    # Unless it was sealed and trimmed since the last page was read.
    if last is not None and after and after[0].seq > end + 1 and await audit.audit_head() == last:
        kept = after[0].seq
        return 0, Finding(end + 1, "cut", f"the change log begins at {kept}, and no row goes before it is sealed")
    return head.seq - end, None
