"""What every `MetadataStore` must do with invocations and what is counted of them."""

import asyncio

import msgspec
import pytest

from services.models import Usage
from services.ports import InvocationQuery, MetadataStore
from tests.contract.conftest import Reopen
from tests.support.drafts import invocation

pytestmark = pytest.mark.anyio


async def test_invocations_are_found_by_caller_outcome_and_end_of_a_time_range(store: MetadataStore) -> None:
    logged = [msgspec.structs.replace(invocation(n), caller="ann" if n % 3 else "bob") for n in range(12)]
    await store.record(logged)

    async def ids(query: InvocationQuery) -> list[int]:
        return [int(found.id[4:]) for found in await store.invocations(query)]

    assert await ids(InvocationQuery(100, caller="bob")) == [9, 6, 3, 0]
    assert await ids(InvocationQuery(100, ok=True)) == [10, 8, 6, 4, 2, 0]
    assert await ids(InvocationQuery(100, ok=False, caller="bob")) == [9, 3]
    assert await ids(InvocationQuery(100, until="2026-11-21T00:00:03.000Z")) == [2, 1, 0]
    both_ends = InvocationQuery(2, since="2026-11-21T00:00:03.000Z", until="2026-11-21T00:00:08.000Z")
    assert await ids(both_ends) == [7, 6]
    assert await ids(both_ends._replace(before="inv-0006")) == [5, 4]
    assert await ids(InvocationQuery(100, caller="nobody")) == []


async def test_usage_is_counted_by_version_and_survives_a_restart(store: MetadataStore, reopen: Reopen) -> None:
    await store.record([msgspec.structs.replace(invocation(n), version=9 + n % 2) for n in range(5)])
    await store.record([invocation(59), invocation(58, "main/beta")])

    assert await store.usage("main/alpha") == await (await reopen()).usage("main/alpha")
    assert await store.usage("main/alpha") == [
        Usage("main/alpha", 10, 2, 2, "2026-11-21T00:00:03.000Z"),
        Usage("main/alpha", 9, 3, 0, "2026-11-21T00:00:04.000Z"),
        Usage("main/alpha", 1, 1, 1, "2026-11-21T00:00:59.000Z"),
    ]
    assert await store.usage("main/none") == []


async def test_a_batch_that_is_given_again_is_counted_once(store: MetadataStore) -> None:
    """The log's writer tries a batch again when it was not told that it was committed."""
    batch = [invocation(n) for n in range(3)]
    await store.record(batch)
    await store.record([*batch, invocation(4), invocation(4)])
    await store.record(batch[:1])
    assert await store.usage("main/alpha") == [Usage("main/alpha", 1, 4, 1, "2026-11-21T00:00:04.000Z")]
    assert len(await store.invocations(InvocationQuery(100))) == 4


async def test_an_older_call_that_is_logged_later_leaves_the_time_of_the_last(store: MetadataStore) -> None:
    await store.record([invocation(7)])
    await store.record([invocation(3)])
    (usage,) = await store.usage("main/alpha")
    assert usage.last_at == "2026-11-21T00:00:07.000Z"


async def test_replicas_that_count_at_once_lose_nothing(store: MetadataStore, reopen: Reopen) -> None:
    stores = [store, await reopen()]
    batches = [
        [msgspec.structs.replace(invocation(n), id=f"inv-{batch:02}-{n}", version=1 + n % 3) for n in order]
        for batch in range(20)
        for order in [range(30) if batch % 2 else range(29, -1, -1)]
    ]
    await asyncio.gather(*(stores[n % 2].record(batch) for n, batch in enumerate(batches)))
    counted = await store.usage("main/alpha")
    assert [(usage.version, usage.calls, usage.failures) for usage in counted] == [
        (3, 200, 100),
        (2, 200, 100),
        (1, 200, 100),
    ]


async def test_what_callers_send_is_kept_whatever_its_characters(store: MetadataStore) -> None:
    odd = msgspec.structs.replace(invocation(1), caller="o'neil\\%s\x00", arguments='{"q": "\'; --\\n\u2028"}')
    await store.record([odd])
    (kept,) = await store.invocations(InvocationQuery(1))
    assert kept == msgspec.structs.replace(odd, caller="o'neil\\%s\ufffd")


async def test_expired_invocations_go_oldest_first_in_batches_and_stay_counted(store: MetadataStore) -> None:
    await store.record([invocation(n) for n in range(9, -1, -1)])
    stamp = "2026-11-21T00:00:07.000Z"
    assert await store.expire_invocations(stamp, 4) == 4
    assert [found.id for found in await store.invocations(InvocationQuery(100))][-1] == "inv-0004"
    assert [await store.expire_invocations(stamp, 4) for _ in range(2)] == [3, 0]
    assert [found.id for found in await store.invocations(InvocationQuery(100))] == ["inv-0009", "inv-0008", "inv-0007"]
    assert [usage.calls for usage in await store.usage("main/alpha")] == [10]
