"""What every `AuditStore` must do, whatever it keeps its records in."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from services.audit.chain import Seal, head_of, judge, seal
from services.audit.nouns import AuditHead, AuditQuery, AuditRecord
from services.failures import Conflict
from services.models import Change
from services.ports import APPENDED_MAX, AuditStore
from tests.support.drafts import draft, tool
from tests.support.stores import AnyStore, audit_of, open_store

pytestmark = pytest.mark.anyio

AT = "2026-11-26T00:00:00.000Z"
KEY = "a key that the database does not have"


@pytest.fixture
async def pair(store_url: str) -> AsyncIterator[tuple[AnyStore, AnyStore]]:
    first, second = await open_store(store_url), await open_store(store_url)
    yield first, second
    await first.close()
    await second.close()


@pytest.fixture
def audit(pair: tuple[AnyStore, AnyStore]) -> AuditStore:
    return audit_of(pair[0])


def change(seq: int, *, by: str = "ann", kind: str = "skill.published", skill: str = "main/alpha") -> Change:
    topic = kind.partition(".")[0].replace("skill", "skills").replace("reload", "reloads")
    owner = skill.partition("/")[0]
    subject = f"{'reloads' if topic == 'reloads' else 'skill'}:{skill}"
    data = msgspec.json.encode({"id": skill, "by": by, "text": "\0 and ü"})
    at = f"2026-11-26T00:{seq // 60:02d}:{seq % 60:02d}.000Z"
    return Change(f"e0-{seq}-{seq:08x}", "", seq, topic, kind, subject, owner, "public", at, data)


def records_of(changes: Sequence[Change], before: AuditHead | None = None, key: str = "") -> list[AuditRecord]:
    return seal(changes, before, AT, Seal(key))


async def seqs(audit: AuditStore, query: AuditQuery) -> list[int]:
    return [record.seq for record in await audit.audit(query)]


async def test_records_are_read_as_they_were_appended_on_every_replica(
    audit: AuditStore, pair: tuple[AnyStore, AnyStore]
) -> None:
    other = audit_of(pair[1])
    assert (await other.audit_head(), await other.audit(AuditQuery(10))) == (None, [])
    await audit.append_audit([])
    assert await other.audit_head() is None

    first = records_of([change(3), change(4, by="\0")])
    await audit.append_audit(first)
    second = records_of([change(5)], head_of(first[-1]), KEY)
    await audit.append_audit(second)

    assert await other.audit_head() == head_of(second[0])
    kept = await other.audit(AuditQuery(10, after=0))
    assert kept == [*first, *second]
    assert judge(kept, None, Seal(KEY)) is None


async def test_changes_of_a_real_log_are_sealed_as_they_are_read_back(
    audit: AuditStore, pair: tuple[AnyStore, AnyStore]
) -> None:
    await pair[0].publish([draft(tools=[tool("run")])])
    await pair[0].deactivate("main/alpha", "bob\0")
    await audit.append_audit(records_of(await pair[1].tail(0, 10)))
    kept = await audit.audit(AuditQuery(10, after=0))
    assert judge(kept, None, Seal()) is None
    assert [(record.kind, record.by) for record in kept] == [
        ("skill.published", "test"),
        ("tools.changed", "test"),
        ("skill.deleted", "bob\N{REPLACEMENT CHARACTER}"),
        ("tools.changed", "bob\N{REPLACEMENT CHARACTER}"),
    ]


async def test_what_does_not_follow_the_head_is_refused_and_none_of_it_is_kept(audit: AuditStore) -> None:
    first = records_of([change(1), change(2)])
    with pytest.raises(Conflict):
        await audit.append_audit(first[1:])
    await audit.append_audit(first)
    for refused in (first, first[1:], records_of([change(3), change(4)]), records_of([change(2)], head_of(first[0]))):
        with pytest.raises(Conflict):
            await audit.append_audit(refused)
    assert await audit.audit_head() == head_of(first[-1])
    assert await seqs(audit, AuditQuery(10)) == [2, 1]


async def test_of_sealers_at_once_one_appends_and_the_chain_stays_one(pair: tuple[AnyStore, AnyStore]) -> None:
    stores = [audit_of(store) for store in pair]
    head: AuditHead | None = None
    for start in range(1, 40, 3):
        # Each has read the log at another moment: what they append is not the same.
        tries = [records_of([change(seq) for seq in range(start, start + 1 + more)], head) for more in (0, 1, 2)]
        outcomes = await asyncio.gather(
            *(stores[n % 2].append_audit(some) for n, some in enumerate(tries)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict, Conflict]
        head = await stores[0].audit_head()
        assert head is not None
        await stores[1].append_audit(records_of([change(seq) for seq in range(head.seq + 1, start + 3)], head))
        head = await stores[0].audit_head()
    kept = await stores[1].audit(AuditQuery(100, after=0))
    assert judge(kept, None, Seal()) is None
    assert [record.seq for record in kept] == list(range(1, 40))


async def test_two_who_began_at_different_rows_do_not_fork_the_chain(pair: tuple[AnyStore, AnyStore]) -> None:
    """As when the log was trimmed between their reads of it."""
    stores = [audit_of(store) for store in pair]
    head: AuditHead | None = None
    for start in range(1, 60, 3):
        tries = [records_of([change(start + first)], head) for first in (0, 1)]
        outcomes = await asyncio.gather(
            *(store.append_audit(some) for store, some in zip(stores, tries, strict=True)), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]
        head = await stores[0].audit_head()
    kept = await stores[1].audit(AuditQuery(100, after=0))
    assert [record.prev for record in kept[1:]] == [record.hash for record in kept[:-1]]


async def test_as_many_as_may_be_are_appended_at_once(audit: AuditStore) -> None:
    records = records_of([change(seq) for seq in range(9_980, 9_980 + APPENDED_MAX)])
    large = msgspec.structs.replace(records[0], data=b'"%s"' % (b"x" * 20_000))
    await audit.append_audit([large, *records[1:]])
    kept = await audit.audit(AuditQuery(100, after=0))
    assert [record.seq for record in kept] == [record.seq for record in records]
    assert kept[0] == large


async def test_pages_go_either_way(audit: AuditStore) -> None:
    await audit.append_audit(records_of([change(seq) for seq in range(9_997, 10_004)]))
    assert await seqs(audit, AuditQuery(3)) == [10_003, 10_002, 10_001]
    assert await seqs(audit, AuditQuery(5, before=10_001)) == [10_000, 9_999, 9_998, 9_997]
    assert await seqs(audit, AuditQuery(3, after=9_998)) == [9_999, 10_000, 10_001]
    assert await seqs(audit, AuditQuery(3, after=10_003)) == []
    assert await seqs(audit, AuditQuery(3, before=9_997)) == []
    assert await seqs(audit, AuditQuery(9, after=9_998, before=10_000)) == [9_999]


async def test_filters_find_by_skill_person_kind_topic_and_time(audit: AuditStore) -> None:
    rows = [
        change(1),
        change(2, by="bob"),
        change(3, kind="skill.deleted", by="bob"),
        change(4, skill="main/beta"),
        change(5, kind="reload.skill", by="eve"),
        change(6, kind="reload.folder", skill="", by="eve"),
    ]
    await audit.append_audit(records_of(rows))

    assert await seqs(audit, AuditQuery(9, skill="main/alpha")) == [5, 3, 2, 1]
    assert await seqs(audit, AuditQuery(2, skill="main/alpha", before=5)) == [3, 2]
    assert await seqs(audit, AuditQuery(9, by="bob")) == [3, 2]
    assert await seqs(audit, AuditQuery(9, by="bob", kind="skill.deleted")) == [3]
    assert await seqs(audit, AuditQuery(9, topic="reloads")) == [6, 5]
    assert await seqs(audit, AuditQuery(9, since=rows[4].at)) == [6, 5]
    assert await seqs(audit, AuditQuery(9, until=rows[1].at)) == [1]
    assert await seqs(audit, AuditQuery(1, after=2, topic="skills", skill="main/alpha")) == [3]
    assert await seqs(audit, AuditQuery(9, by="nobody")) == []


async def test_a_change_that_is_not_sealed_is_never_trimmed(pair: tuple[AnyStore, AnyStore]) -> None:
    for number in range(6):
        await pair[0].publish([draft(text=f"text {number}")])
    assert await pair[1].trim(1, 100, sealed=0) == 0
    assert await pair[1].trim(1, 100, sealed=2) == 2
    assert await pair[1].trim(1, 100, sealed=2) == 0
    assert [row.seq for row in await pair[0].tail(0, 100)] == [3, 4, 5, 6]
