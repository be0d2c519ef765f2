"""A chain in a real database, and what somebody who can write there may do to it."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import Executable, delete, update

from services.audit import verification
from services.audit.chain import Finding, Seal, seal
from services.audit.nouns import AuditQuery
from services.audit.verification import Noted, Verdict, verify
from services.clock import utc_now
from services.storage import schema
from services.storage.audit import SqlAudit
from services.storage.sql import SqlStore
from tests.support.drafts import draft

pytestmark = pytest.mark.anyio

KEY = Seal("a key that is not in the database")


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    """Twelve changes, of which all are sealed."""
    opened = await SqlStore.open(database_url)
    for number in range(12):
        await opened.publish([draft(text=f"text {number}")])
    await seal_all(opened)
    yield opened
    await opened.close()


async def seal_all(store: SqlStore, by_seal: Seal = KEY) -> None:
    audit = SqlAudit(store)
    head = await audit.audit_head()
    rows = await store.tail(head.seq if head else 0, 50)
    await audit.append_audit(seal(rows, head, utc_now(), by_seal))


async def verified(store: SqlStore, *noted: Noted) -> Verdict:
    return await verify(SqlAudit(store), store, KEY, noted)


async def wrong(store: SqlStore, *noted: Noted) -> tuple[int, str] | None:
    finding: Finding | None = (await verified(store, *noted)).finding
    return finding and (finding.seq, finding.problem)


async def write(store: SqlStore, statement: Executable) -> None:
    async with store.writing() as connection:
        await connection.execute(statement)


async def noted_at(store: SqlStore, seq: int) -> Noted:
    (record,) = await SqlAudit(store).audit(AuditQuery(1, after=seq - 1))
    return Noted(record.seq, record.hash)


async def test_a_chain_that_nobody_has_touched_is_good(store: SqlStore) -> None:
    heads = [await noted_at(store, seq) for seq in (1, 5, 12)]
    told: list[tuple[int, int]] = []
    await store.publish([draft(text="not sealed yet")])
    verdict = await verify(SqlAudit(store), store, KEY, heads, lambda *at: told.append(at))
    assert verdict == (12, 1, await SqlAudit(store).audit_head(), 1, 1, None)
    assert told == [(12, 12)]
    await store.trim(1, 100, sealed=9)
    assert (await verified(store, *heads)).finding is None, "rows that were trimmed are not compared"


async def test_a_chain_of_several_pages_is_read_to_its_end(store: SqlStore) -> None:
    audit = SqlAudit(store)
    (row,) = await store.tail(11, 1)
    for start in range(13, 13 + 2 * verification.PAGE, 50):
        rows = [msgspec.structs.replace(row, seq=seq, id=f"e-{seq}-{seq:08x}") for seq in range(start, start + 50)]
        await audit.append_audit(seal(rows, await audit.audit_head(), utc_now(), KEY))
    verdict = await verified(store)
    assert verdict.records == 12 + 2 * verification.PAGE
    assert verdict.finding == (13, "not as the change log has it", "the log ends at 12"), "these rows were never in it"
    table = schema.audit
    await write(store, update(table).where(table.c.seq == 1500).values(by="nobody"))
    verdict = await verified(store)
    assert verdict.finding is not None
    assert (verdict.finding.seq, verdict.finding.problem, verdict.records) == (1500, "changed", 1499)


@pytest.mark.parametrize("name", [column.name for column in schema.audit.columns if column.name != "seq"])
async def test_a_column_of_a_record_that_was_changed_is_found_with_its_seq(store: SqlStore, name: str) -> None:
    table = schema.audit
    value = b"{}" if name == "data" else "private" if name == "visibility" else "forged"
    await write(store, update(table).where(table.c.seq == 5).values({name: value}))
    assert await wrong(store) in [(5, "changed"), (5, "wrong key")]


async def test_records_that_were_removed_are_found(store: SqlStore) -> None:
    table = schema.audit
    await write(store, delete(table).where(table.c.seq.in_([5, 6])))
    assert await wrong(store) == (5, "missing")
    await write(store, delete(table).where(table.c.seq <= 6))
    assert await wrong(store) == (7, "missing")
    assert await wrong(store, Noted(3, "0" * 64)) == (7, "missing")


async def test_records_whose_numbers_were_exchanged_are_found(store: SqlStore) -> None:
    table = schema.audit
    for before, after in ((5, 99), (6, 5), (99, 6)):
        await write(store, update(table).where(table.c.seq == before).values(seq=after))
    assert await wrong(store) == (5, "changed")


async def test_a_tail_that_was_cut_is_found_by_a_head_that_was_noted(store: SqlStore) -> None:
    head = await noted_at(store, 12)
    await write(store, delete(schema.audit).where(schema.audit.c.seq > 9))
    assert (await verified(store)).unsealed == 3, "it looks like changes that wait"
    assert await wrong(store, head) == (10, "cut")
    await seal_all(store)
    assert await wrong(store) is None, "a replica seals them once more"
    assert await wrong(store, head) == (12, "rewritten")
    await write(store, delete(schema.audit))
    assert await wrong(store, head) == (1, "cut")


async def test_a_tail_that_was_cut_after_its_rows_were_trimmed_is_found_by_itself(store: SqlStore) -> None:
    await store.trim(1, 100, sealed=12)
    await write(store, delete(schema.audit).where(schema.audit.c.seq > 9))
    assert await wrong(store) == (10, "cut")
    await seal_all(store)
    assert await wrong(store) == (10, "missing")


async def test_a_chain_made_anew_is_found_by_a_head_that_was_noted(store: SqlStore) -> None:
    head = await noted_at(store, 12)
    for forger in (Seal(), Seal("another key, made up by the forger"), KEY):
        await write(store, delete(schema.audit))
        await seal_all(store, forger)
        expected = {"": (12, "rewritten"), KEY.key_id: (12, "rewritten")}.get(forger.key_id, (1, "wrong key"))
        assert await wrong(store, head) == expected
    await write(store, delete(schema.audit))
    await seal_all(store, Seal())
    assert (await verified(store)).keyed_from is None, "what an operator with a key is told"


async def test_a_chain_that_begins_after_a_head_that_was_noted_is_found(store: SqlStore) -> None:
    head = await noted_at(store, 3)
    await store.trim(1, 100, sealed=9)
    await write(store, delete(schema.audit))
    await seal_all(store)
    assert await wrong(store) is None
    assert await wrong(store, head) == (3, "missing")


async def test_a_row_of_the_log_that_was_changed_is_found(store: SqlStore) -> None:
    table = schema.changes
    await write(store, update(table).where(table.c.seq == 7).values(owner="eve"))
    assert await wrong(store) == (7, "not as the change log has it")
    await write(store, update(table).where(table.c.seq == 4).values(body=b'{"data":{"by":"eve"}}'))
    finding = (await verified(store)).finding
    assert finding is not None
    assert (finding.seq, finding.detail) == (4, "the row has another by, data")


async def test_the_head_of_a_store_that_has_none_is_no_finding(database_url: str) -> None:
    store = await SqlStore.open(database_url)
    try:
        assert await verified(store) == (0, 0, None, None, 0, None)
        await store.publish([draft()])
        assert (await verified(store)).unsealed == 1
        assert await wrong(store, Noted(1, "0" * 64)) == (1, "cut")
    finally:
        await store.close()
