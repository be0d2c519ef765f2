"""Sealing: who does it, that nothing is left out and nothing forked, and what waits for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
import structlog
from prometheus_client import Counter, Gauge

from services import metrics
from services.audit import sealing
from services.audit.chain import Seal
from services.audit.nouns import AuditQuery, AuditRecord
from services.audit.sealing import LEASE, AuditSealing
from services.audit.verification import verify
from services.changes.log import ChangeFeed
from services.changes.retention import LogRetention
from services.failures import Forbidden, Unavailable
from services.models import Change
from services.ports import APPENDED_MAX, AuditStore, MetadataStore
from services.storage.audit import SqlAudit
from services.storage.sql import SqlStore
from tests.support.drafts import draft
from tests.support.listeners import eventually
from tests.support.stores import AnyStore, audit_of, open_store

pytestmark = pytest.mark.anyio

PLAIN = Seal()
WAIT_S = 5.0


class TroubledStore:
    """A store whose tails fail while `failing`; `tailed` is set by each."""

    def __init__(self, inner: SqlStore) -> None:
        self._inner = inner
        self.failing = False
        self.tails = 0
        self.tailed = asyncio.Event()

    async def tail(self, after: int, limit: int) -> list[Change]:
        self.tails += 1
        self.tailed.set()
        if self.failing:
            raise Unavailable("the database is away")
        return await self._inner.tail(after, limit)

    async def acquire_lease(self, name: str, holder: str, ttl_s: float) -> bool:
        return await self._inner.acquire_lease(name, holder, ttl_s)

    async def release_lease(self, name: str, holder: str) -> None:
        await self._inner.release_lease(name, holder)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    opened = await SqlStore.open(database_url)
    yield opened
    await opened.close()


async def publish(store: AnyStore, *texts: object) -> None:
    for text in texts:
        await store.publish([draft(text=f"text {text}")])


def sealer(
    store: AnyStore | TroubledStore,
    audit: AuditStore,
    replica: str = "a",
    *,
    by_seal: Seal = PLAIN,
    newest: int = 10**6,
) -> AuditSealing:
    """One that believes the log to be long, and therefore always looks."""
    return AuditSealing(cast(MetadataStore, store), audit, by_seal, newest, replica=replica, look_s=0.05, pause_s=0.01)


async def records(store: AnyStore) -> list[AuditRecord]:
    return await audit_of(store).audit(AuditQuery(1000, after=0))


async def assert_sealed(store: AnyStore, count: int, by_seal: Seal = PLAIN) -> None:
    """The whole log, each row once."""
    assert [record.seq for record in await records(store)] == list(range(1, count + 1))
    verdict = await verify(audit_of(store), store, by_seal)
    assert (verdict.finding, verdict.unsealed) == (None, 0)


async def has_sealed(store: AnyStore, count: int) -> bool:
    return len(await records(store)) == count


def value(metric: Counter | Gauge) -> float:
    return float(next(iter(metric.collect())).samples[0].value)


async def test_what_is_there_is_sealed_in_order_however_much_it_is(store: SqlStore) -> None:
    await publish(store, *range(2 * APPENDED_MAX + 3))
    assert await sealer(store, SqlAudit(store)).look()
    await assert_sealed(store, 2 * APPENDED_MAX + 3)
    assert value(metrics.audit_head) == 2 * APPENDED_MAX + 3


async def test_a_change_is_sealed_when_the_log_tells_of_it_and_after_a_restart_the_chain_goes_on(
    store: SqlStore,
) -> None:
    for texts in (("one", "two"), ("three",)):
        head = await store.head()
        following = AuditSealing(store, SqlAudit(store), PLAIN, head.seq, replica="a", look_s=60, pause_s=0)
        feed = ChangeFeed(store, head, interval_s=60)
        feed.follow(following)
        following.start()
        for text in texts:
            await publish(store, text)
            await feed.tail()
        count = head.seq + len(texts)
        assert await eventually(lambda count=count: has_sealed(store, count))  # type: ignore[misc]  # bound now, on purpose
        await following.close()
        await feed.close()
        assert value(metrics.audit_lag) == 0
        assert await store.lease_holder(LEASE) is None, "whoever goes on need not wait for it"
    await assert_sealed(store, 3)


async def test_a_replica_seals_what_was_there_before_it_came(store: SqlStore) -> None:
    await publish(store, "one", "two")
    one = AuditSealing(store, SqlAudit(store), PLAIN, (await store.head()).seq, replica="a", look_s=0.02, pause_s=0)
    one.start()
    assert await eventually(lambda: has_sealed(store, 2))
    await one.close()


async def test_of_two_replicas_one_seals_and_when_it_is_gone_the_other_goes_on(store: SqlStore) -> None:
    audit = SqlAudit(store)
    await publish(store, "one")
    a, b = sealer(store, audit, "a"), sealer(store, audit, "b")
    assert await a.look()
    await publish(store, "two")
    assert not await b.look(), "the lease is another's"
    assert await has_sealed(store, 1)
    await store.acquire_lease(LEASE, "a", -1)  # as if its time had run out
    assert await b.look()
    await assert_sealed(store, 2)


async def test_sealers_that_take_no_notice_of_each_other_make_one_chain(store_url: str) -> None:
    """As one that was paused for longer than its lease, and wakes."""
    stores = [await open_store(store_url) for _ in range(3)]
    replicas = [sealer(store, audit_of(store), "the same").start() for store in stores]
    for number in range(30):
        await publish(stores[number % 3], number)
    assert await eventually(lambda: has_sealed(stores[0], 30))
    for replica in replicas:
        await replica.close()
    await assert_sealed(stores[1], 30)
    for store in stores:
        await store.close()


async def test_a_database_that_does_not_answer_is_said_once_and_tried_again(store: SqlStore) -> None:
    before = value(metrics.audit_failures)
    troubled = TroubledStore(store)
    troubled.failing = True
    await publish(store, "one")
    with structlog.testing.capture_logs() as logs:
        one = sealer(troubled, SqlAudit(store)).start()
        while troubled.tails < 3:
            async with asyncio.timeout(WAIT_S):
                await troubled.tailed.wait()
            troubled.tailed.clear()
        troubled.failing = False
        assert await eventually(lambda: has_sealed(store, 1))
        await one.close()
    said = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert said == ["the change log cannot be sealed; trying again"]
    assert value(metrics.audit_failures) >= before + 2


async def test_a_chain_that_was_keyed_is_not_gone_on_with_without_that_key(store: SqlStore) -> None:
    audit, key = SqlAudit(store), Seal("a key that is not in the database")
    await publish(store, "one")
    assert await sealer(store, audit).look()
    await publish(store, "two")
    assert await sealer(store, audit, by_seal=key).look()
    await publish(store, "three")
    for other in (PLAIN, Seal("another key, which is not in it too")):
        with pytest.raises(Forbidden, match=key.key_id):
            await sealer(store, audit, by_seal=other).look()
    assert await sealer(store, audit, by_seal=key).look()
    await assert_sealed(store, 3, key)
    assert [record.key_id for record in await records(store)] == ["", key.key_id, key.key_id]


async def test_a_log_that_was_trimmed_before_there_was_an_audit_begins_its_chain_there(store: SqlStore) -> None:
    await publish(store, *range(6))
    await store.trim(1, 100, sealed=4)
    assert await sealer(store, SqlAudit(store)).look()
    verdict = await verify(SqlAudit(store), store, PLAIN)
    assert (verdict.first, verdict.records, verdict.finding) == (5, 2, None)


async def test_rows_that_went_before_they_were_sealed_are_told_and_the_chain_goes_on(store: SqlStore) -> None:
    before = value(metrics.audit_failures)
    await publish(store, "one")
    one = sealer(store, SqlAudit(store))
    assert await one.look()
    await publish(store, *range(5))
    await store.trim(1, 100, sealed=4)  # as a version that knows no audit does
    with structlog.testing.capture_logs() as logs:
        assert await one.look()
    assert [record.seq for record in await records(store)] == [1, 5, 6]
    assert [(entry["after"], entry["before"]) for entry in logs if entry["log_level"] == "error"] == [(1, 5)]
    assert value(metrics.audit_failures) == before + 1
    finding = (await verify(SqlAudit(store), store, PLAIN)).finding
    assert finding is not None
    assert (finding.seq, finding.problem) == (2, "missing")


async def test_a_database_that_went_back_is_sealed_on_from_where_it_is(store: SqlStore) -> None:
    await publish(store, "one")
    one = AuditSealing(store, SqlAudit(store), PLAIN, 1, replica="a", look_s=60, pause_s=0)
    assert await one.look()
    async with store.writing() as connection:
        await connection.exec_driver_sql("DELETE FROM audit")
    assert await one.look(), "nothing tells it"
    assert await has_sealed(store, 0)
    one.restart(await store.snapshot())
    assert await one.look()
    await assert_sealed(store, 1)


async def test_the_head_is_told_in_the_log_now_and_then_and_at_the_end(store: SqlStore) -> None:
    now = [0.0]
    one = AuditSealing(store, SqlAudit(store), PLAIN, 10**6, replica="a", clock=lambda: now[0])
    with structlog.testing.capture_logs() as logs:
        for at_s, text in ((0.0, "one"), (1.0, "two"), (sealing.TELL_S, "three"), (sealing.TELL_S + 1, "four")):
            now[0] = at_s
            await publish(store, text)
            assert await one.look()
        await one.close()
        await one.close()
    told = [(entry["seq"], entry["hash"]) for entry in logs if entry["event"] == "the audit log has a new head"]
    chain = {record.seq: record.hash for record in await records(store)}
    assert told == [(seq, chain[seq]) for seq in (1, 3, 4)]


async def test_retention_leaves_every_row_that_is_not_sealed(store: SqlStore) -> None:
    audit = SqlAudit(store)
    await publish(store, *range(10))
    one = sealer(store, audit)
    retention = LogRetention(store, audit, "a", 3, look_s=0.01).start()
    try:
        for _ in range(3):  # it has had its turns
            assert await eventually(lambda: _is_held(store, "change log retention"))
            await store.release_lease("change log retention", "a")
        assert await _has_rows(store, range(1, 11))
        assert await one.look()
        assert await eventually(lambda: _has_rows(store, [8, 9, 10]))
    finally:
        await retention.close()
    await assert_sealed(store, 10)


async def _is_held(store: SqlStore, name: str) -> bool:
    return await store.lease_holder(name) is not None


async def _has_rows(store: SqlStore, seqs: Sequence[int]) -> bool:
    return [row.seq for row in await store.tail(0, 100)] == [*seqs]


async def test_who_has_nothing_to_seal_asks_for_no_lease(store: SqlStore) -> None:
    one = AuditSealing(store, SqlAudit(store), PLAIN, 0, replica="a")
    assert await one.look()
    assert await store.lease_holder(LEASE) is None
