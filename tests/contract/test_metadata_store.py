"""What every `MetadataStore` must do, whatever it keeps its rows in."""

import asyncio
import random
from contextlib import suppress

import msgspec
import pytest

from services.failures import Conflict, Invalid, NotFound
from services.models import Change, Diagnostic, LedgerEntry, Skill
from services.ports import InvocationQuery, MetadataStore
from tests.contract.conftest import Reopen
from tests.support.drafts import assert_linked, draft, invocation, sha256, tool

pytestmark = pytest.mark.anyio


async def find(store: MetadataStore, skill_id: str = "main/alpha") -> Skill:
    return {skill.id: skill for skill in (await store.snapshot()).skills}[skill_id]


async def whole_log(store: MetadataStore) -> list[Change]:
    return await store.tail(0, 10_000)


async def test_versions_are_numbered_one_by_one_and_ten_comes_after_nine(store: MetadataStore) -> None:
    published = [(await store.publish([draft(text=f"text {n}")]))[0] for n in range(1, 12)]

    assert [answer.version for answer in published] == list(range(1, 12))
    assert [version.version for version in await store.versions("main/alpha")] == list(range(11, 0, -1))
    active = (await find(store)).active
    assert active is not None
    assert (active.version, active.digest) == (11, f"sha256:{sha256('text 11')}")
    assert await store.version("main/alpha", 11) == active


async def test_versions_are_read_page_by_page(store: MetadataStore) -> None:
    for n in range(1, 12):
        await store.publish([draft(text=f"text {n}")])
    await store.publish([draft("alphabet")])

    async def page(before: int | None, limit: int | None) -> list[int]:
        return [version.version for version in await store.versions("main/alpha", before=before, limit=limit)]

    assert await page(None, 4) == [11, 10, 9, 8]
    assert await page(8, 4) == [7, 6, 5, 4]
    assert await page(4, 4) == [3, 2, 1]
    assert await page(10, None) == list(range(9, 0, -1))
    assert await page(1, 4) == []
    assert await page(2**60, 1) == [11]


async def test_publishing_the_active_digest_changes_nothing_and_says_so(store: MetadataStore) -> None:
    first = (await store.publish([draft()]))[0]
    head = await store.head()

    again = (await store.publish([draft()]))[0]

    assert (first.changed, first.seq) == (True, head.seq)
    assert again == msgspec.structs.replace(first, changed=False)
    assert await store.head() == head
    assert len(await store.versions("main/alpha")) == 1


async def test_a_digest_that_was_active_once_is_published_as_a_new_version(store: MetadataStore) -> None:
    for text in ("one", "two", "one"):
        await store.publish([draft(text=text)])
    assert [version.version for version in await store.versions("main/alpha")] == [3, 2, 1]


async def test_a_stale_if_match_in_the_middle_commits_none_of_the_drafts(store: MetadataStore) -> None:
    await store.publish([draft("beta", "one")])
    before = await store.snapshot()
    drafts = [
        draft("alpha", "one", source_path="alpha"),
        draft("beta", "two", if_match="sha256:other"),
        draft("gamma", "one"),
    ]

    with pytest.raises(Conflict):
        await store.publish(drafts)

    assert await store.snapshot() == before
    assert await store.versions("main/alpha") == []
    assert await store.ledger("folder") == {}
    assert await store.tail(before.position.seq, 10) == []


async def test_a_conflict_carries_the_digest_that_is_active(store: MetadataStore) -> None:
    await store.publish([draft(text="one")])
    await store.publish([draft(text="two", if_match=f"sha256:{sha256('one')}")])

    with pytest.raises(Conflict) as stale:
        await store.publish([draft(text="three", if_match=f"sha256:{sha256('one')}")])
    with pytest.raises(Conflict) as absent:
        await store.publish([draft("beta", if_match="sha256:any")])

    assert stale.value.facts == {"active_digest": f"sha256:{sha256('two')}", "active_version": 2}
    assert absent.value.facts == {"active_digest": None, "active_version": None}


async def test_a_quarantined_version_is_kept_and_never_becomes_active(store: MetadataStore) -> None:
    await store.publish([draft("bad", "one", grade="quarantined")])
    await store.publish([draft("alpha", "one")])
    await store.publish([draft("alpha", "two", grade="quarantined")])

    bad, alpha = await find(store, "main/bad"), await find(store)
    assert (bad.status, bad.active, bad.last_version) == ("quarantined", None, 1)
    assert alpha.active is not None
    assert (alpha.status, alpha.active.version, alpha.last_version) == ("active", 1, 2)
    with pytest.raises(Invalid):
        await store.activate("main/alpha", 2, "test")
    with pytest.raises(Invalid):
        await store.activate("main/bad", 1, "test")
    assert [change.kind for change in await whole_log(store)] == [
        "skill.quarantined",
        "skill.published",
        "skill.quarantined",
    ]


async def test_a_draft_that_is_not_to_be_activated_waits_as_a_version(store: MetadataStore) -> None:
    await store.publish([draft(text="one", activate=False)])
    assert (await find(store)).status == "draft"

    await store.activate("main/alpha", 1, "test")

    skill = await find(store)
    assert skill.active is not None
    assert (skill.status, skill.active.version) == ("active", 1)


async def test_a_version_that_is_only_kept_leaves_the_visibility_of_the_served_one(store: MetadataStore) -> None:
    await store.publish([draft(text="one", visibility="private")])
    await store.publish([draft(text="two", grade="quarantined")])
    await store.publish([draft(text="three", activate=False)])
    assert (await find(store)).visibility == "private"
    await store.publish([draft(text="four")])
    assert (await find(store)).visibility == "public"


async def test_a_rollback_is_a_change_and_survives_reopening(store: MetadataStore, reopen: Reopen) -> None:
    await store.publish([draft(text="one")])
    await store.publish([draft(text="two")])

    back = await store.activate("main/alpha", 1, "ann")
    again = await store.activate("main/alpha", 1, "ann")

    assert (back.version, back.digest, back.changed) == (1, f"sha256:{sha256('one')}", True)
    assert (again.seq, again.changed) == (back.seq, False)
    row = (await store.tail(back.seq - 1, 10))[0]
    assert (row.kind, msgspec.json.decode(row.data)["by"]) == ("skill.activated", "ann")
    reopened = await reopen()
    assert await reopened.snapshot() == await store.snapshot()
    assert row.skill == await find(reopened)
    assert (await reopened.publish([draft(text="three")]))[0].version == 3


async def test_a_deleted_skill_keeps_its_versions_and_can_come_back(store: MetadataStore) -> None:
    await store.publish([draft(text="one")])
    await store.publish([draft(text="two")])

    await store.deactivate("main/alpha", "ann")

    gone = await find(store)
    assert (gone.status, gone.active, gone.last_version) == ("inactive", None, 2)
    assert [version.version for version in await store.versions("main/alpha")] == [2, 1]
    with pytest.raises(NotFound):
        await store.deactivate("main/alpha", "ann")
    await store.activate("main/alpha", 2, "ann")
    back = await find(store)
    assert back.active is not None
    assert (back.status, back.active.version) == ("active", 2)
    kinds = [change.kind for change in await whole_log(store)]
    assert kinds == ["skill.published", "skill.published", "skill.deleted", "skill.activated"]


async def test_publishing_after_a_delete_takes_the_next_number(store: MetadataStore) -> None:
    await store.publish([draft(text="one")])
    await store.deactivate("main/alpha", "ann")
    assert (await store.publish([draft(text="one")]))[0].version == 2


async def test_what_does_not_exist_is_not_found(store: MetadataStore) -> None:
    await store.publish([draft()])
    for attempt in (
        store.activate("main/none", 1, "test"),
        store.activate("main/alpha", 2, "test"),
        store.deactivate("main/none", "test"),
        store.version("main/alpha", 2),
        store.version("main/none", 1),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await store.versions("main/none") == []
    assert (await store.head()).seq == 1


async def test_rows_are_dense_and_name_the_one_before_them_on_their_stream(store: MetadataStore) -> None:
    for round_ in range(3):
        await store.publish([
            draft("alpha", f"a{round_}", tools=[tool(f"t{round_}")]),
            draft("beta", f"b{round_}", owner="team"),
            draft("gamma", f"c{round_}", visibility="private"),
        ])  # fmt: skip
    await store.deactivate("main/alpha", "test")

    changes = await whole_log(store)
    head = await store.head()

    assert len(changes) == 3 * 4 + 2
    assert_linked(changes, head.epoch)
    assert (head.seq, head.id) == (changes[-1].seq, changes[-1].id)
    newest = {(change.topic, change.owner, change.visibility): change.id for change in changes}
    assert (await store.snapshot()).streams == newest


async def test_a_tail_goes_on_where_it_was_cut(store: MetadataStore) -> None:
    await store.publish([draft(f"skill-{n}") for n in range(7)])
    pages = [await store.tail(after, 3) for after in (0, 3, 6, 7)]
    assert [[change.seq for change in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7], []]


async def test_a_row_of_the_tools_is_written_only_when_the_tools_changed(store: MetadataStore) -> None:
    await store.publish([draft(text="one")])
    await store.publish([draft(text="two", tools=[tool("run")])])
    await store.publish([draft(text="three", tools=[tool("run")])])
    await store.publish([draft(text="four", tools=[tool("walk")], grade="quarantined")])
    await store.activate("main/alpha", 1, "test")
    await store.activate("main/alpha", 2, "test")
    await store.deactivate("main/alpha", "test")

    log = await whole_log(store)
    rows = [(change.seq, msgspec.json.decode(change.data)) for change in log if change.topic == "tools"]

    assert [(seq, data["version"], data["tools"]) for seq, data in rows] == [
        (3, 2, ["run"]),
        (7, 1, []),
        (9, 2, ["run"]),
        (11, None, []),
    ]


async def write_something(store: MetadataStore, chance: random.Random) -> None:
    name = chance.choice(["alpha", "beta", "gamma"])
    match chance.randrange(12):
        case 0 | 1:
            await store.deactivate(f"main/{name}", "test")
        case 2 | 3:
            await store.activate(f"main/{name}", chance.randint(1, 4), "test")
        case 4:
            await store.restore(f"main/{name}", "test")
        case 5:
            await store.pin(f"main/{name}", chance.randint(1, 4), chance.random() < 0.5, "test")
        case 6:
            await store.prune_versions(f"main/{name}", 2)
        case 7:
            await store.remove(f"main/{name}", "test")
        case _:
            await store.publish([
                draft(
                    chance.choice(["alpha", "beta", "gamma"]),
                    chance.choice("abcde"),
                    grade=chance.choice(["strict", "lenient", "quarantined"]),
                    tools=[tool("run")] * chance.randint(0, 1),
                    activate=chance.random() < 0.8,
                    visibility=chance.choice(["public", "private"]),
                )
                for _ in range(chance.randint(1, 3))
            ])  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_a_snapshot_and_the_rows_after_it_make_the_next_snapshot(store: MetadataStore, seed: int) -> None:
    chance = random.Random(seed)
    snapshots = [await store.snapshot()]
    for _ in range(40):
        with suppress(Conflict, NotFound, Invalid):  # asked for what is not there: no row, no change
            await write_something(store, chance)
        if chance.random() < 0.3:
            snapshots.append(await store.snapshot())
    last = await store.snapshot()

    for earlier in snapshots:
        skills = {skill.id: skill for skill in earlier.skills}
        streams = dict(earlier.streams)
        position = earlier.position
        for change in await store.tail(earlier.position.seq, 10_000):
            stream = (change.topic, change.owner, change.visibility)
            assert change.prev == streams.get(stream, "")
            streams[stream] = change.id
            position = position._replace(seq=change.seq, id=change.id)
            if change.skill is not None:
                assert change.skill.seq == change.seq
                skills[change.skill.id] = change.skill
        skills = {skill.id: skill for skill in skills.values() if skill.status != "removed"}
        assert skills == {skill.id: skill for skill in last.skills}
        assert (streams, position) == (last.streams, last.position)


async def test_the_ledger_remembers_each_path_and_forgets_what_is_emptied(store: MetadataStore) -> None:
    complaint = (Diagnostic("error", "no name", "SKILL.md", 1, "add one"),)
    await store.publish([draft("alpha", source_path="a"), draft("alpha", source_path="twin")])
    await store.note([LedgerEntry("folder", "broken", "", None, complaint), LedgerEntry("other", "a", "d", None, ())])

    ledger = await store.ledger("folder")

    assert set(ledger) == {"a", "twin", "broken"}
    assert ledger["a"] == LedgerEntry("folder", "a", f"sha256:{sha256('one')}", "main/alpha", ())
    assert ledger["broken"].diagnostics == complaint
    await store.note([LedgerEntry("folder", "broken", "", None, ()), LedgerEntry("folder", "a", "new", "main/b", ())])
    ledger = await store.ledger("folder")
    assert set(ledger) == {"a", "twin"}
    assert (ledger["a"].digest, ledger["a"].skill_id) == ("new", "main/b")
    assert set(await store.ledger("other")) == {"a"}


async def test_a_lease_is_one_holders_until_it_is_released_or_runs_out(store: MetadataStore) -> None:
    assert await store.acquire_lease("scan", "a", 60)
    assert not await store.acquire_lease("scan", "b", 60)
    assert await store.acquire_lease("other", "b", 60)
    assert await store.acquire_lease("scan", "a", 60), "the holder renews it"
    await store.release_lease("scan", "b")
    assert not await store.acquire_lease("scan", "b", 60), "only its holder releases it"
    await store.release_lease("scan", "a")
    assert await store.acquire_lease("scan", "b", -1)
    assert await store.acquire_lease("scan", "a", 60), "one that ran out is free"
    assert not await store.acquire_lease("scan", "b", 60)


async def test_one_of_many_takes_a_lease(store: MetadataStore, reopen: Reopen) -> None:
    stores = [store, await reopen()]
    taken = await asyncio.gather(*(stores[n % 2].acquire_lease("scan", f"holder-{n}", 60) for n in range(20)))
    assert sum(taken) == 1


async def test_invocations_are_read_newest_first_by_skill_and_time_and_page(store: MetadataStore) -> None:
    logged = [invocation(n, "main/alpha" if n < 6 else "main/beta") for n in range(10)]
    await store.record(logged[5:])
    await store.record(logged[:5])

    async def ids(query: InvocationQuery) -> list[int]:
        return [int(found.id[4:]) for found in await store.invocations(query)]

    assert await store.invocations(InvocationQuery(2)) == [logged[9], logged[8]]
    assert await ids(InvocationQuery(100)) == list(range(9, -1, -1))
    assert await ids(InvocationQuery(3, skill_id="main/alpha")) == [5, 4, 3]
    assert await ids(InvocationQuery(3, skill_id="main/alpha", before="inv-0003")) == [2, 1, 0]
    assert await ids(InvocationQuery(100, since="2026-11-21T00:00:07.000Z")) == [9, 8, 7]
    assert await ids(InvocationQuery(100, since="2026-11-21T00:00:03.000Z", before="inv-0005")) == [4, 3]


async def test_recording_a_batch_again_after_a_lost_answer_keeps_one_of_each(store: MetadataStore) -> None:
    """The log's writer tries a batch again when it was not told that it was committed."""
    batch = [invocation(n) for n in range(3)]
    await store.record(batch)
    await store.record([*batch, invocation(3)])
    await store.record([])
    assert len(await store.invocations(InvocationQuery(100))) == 4


async def test_vectors_come_back_by_model_and_key_whatever_their_number(store: MetadataStore) -> None:
    vectors = {sha256(str(n)): n.to_bytes(4, "little") * 8 for n in range(1203)}
    await store.put_vectors("use", vectors)
    await store.put_vectors("use", {})
    await store.put_vectors("hash", {sha256("0"): b"other"})

    assert await store.vectors("use", [*vectors, "absent"]) == vectors
    assert await store.vectors("hash", list(vectors)) == {sha256("0"): b"other"}
    assert await store.vectors("use", []) == {}


async def test_a_cancelled_publish_is_whole_or_nothing_and_the_store_goes_on(store: MetadataStore) -> None:
    chance = random.Random(7)
    for n in range(40):
        attempt = asyncio.create_task(store.publish([draft("alpha", f"a{n}"), draft("beta", f"b{n}")]))
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait([attempt], timeout=5)

    async with asyncio.timeout(5):
        await store.publish([draft("alpha", "last"), draft("beta", "last")])
    alpha, beta = await find(store, "main/alpha"), await find(store, "main/beta")
    assert alpha.last_version == beta.last_version
    assert_linked(await whole_log(store), (await store.head()).epoch)


async def test_reads_that_are_cancelled_take_no_connection_with_them(store: MetadataStore) -> None:
    """The feed gives up a tail after 50 ms; with more of them than connections the store must still answer."""
    await store.publish([draft(f"skill-{n}") for n in range(20)])
    chance = random.Random(7)
    for _ in range(60):
        attempt = asyncio.create_task(store.tail(0, 1000))
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait([attempt], timeout=5)

    async with asyncio.timeout(15):  # the emulator of DynamoDB answers a hundred requests a second
        tails = await asyncio.gather(*(store.tail(0, 1000) for _ in range(30)))
    assert {len(tail) for tail in tails} == {20}


async def test_a_secret_is_the_same_for_all_replicas_and_another_for_every_name(
    store: MetadataStore, reopen: Reopen
) -> None:
    other = await reopen()

    found = await asyncio.gather(*(each.secret("cache") for each in (store, other) for _ in range(10)))

    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert await store.secret("cursors") not in (found[0], bytes(32))
    assert await (await reopen()).secret("cache") == found[0]
