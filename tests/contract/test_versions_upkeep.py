"""What every `MetadataStore` must do to keep a skill's versions in order: restore, remove, pin, prune."""

import asyncio

import msgspec
import pytest

from services.failures import Conflict, NotFound, ServiceError
from services.models import LedgerEntry, Skill
from services.ports import InvocationQuery, MetadataStore
from tests.contract.conftest import Reopen
from tests.support.drafts import assert_linked, draft, invocation, sha256, tool

pytestmark = pytest.mark.anyio


async def skills(store: MetadataStore) -> dict[str, Skill]:
    return {skill.id: skill for skill in (await store.snapshot()).skills}


async def alpha(store: MetadataStore) -> Skill:
    return (await skills(store))["main/alpha"]


async def numbers(store: MetadataStore) -> list[int]:
    return [version.version for version in await store.versions("main/alpha")]


async def publish_versions(store: MetadataStore, count: int) -> None:
    for n in range(1, count + 1):
        await store.publish([draft(text=f"text {n}")])


async def test_a_deleted_skill_is_restored_with_the_version_that_was_active(store: MetadataStore) -> None:
    await publish_versions(store, 3)
    await store.activate("main/alpha", 2, "ann")
    await store.deactivate("main/alpha", "ann")
    assert (await alpha(store)).deleted_version == 2

    restored = await store.restore("main/alpha", "bob")

    back = await alpha(store)
    assert back.active is not None
    assert (back.status, back.active.version, back.deleted_version) == ("active", 2, None)
    head = await store.head()
    assert (restored.version, restored.digest, restored.seq) == (2, f"sha256:{sha256('text 2')}", head.seq)
    (row,) = await store.tail(head.seq - 1, 10)
    assert (row.kind, row.dep, msgspec.json.decode(row.data)["by"]) == ("skill.restored", "skill:main/alpha", "bob")


async def test_only_a_deleted_skill_is_restored(store: MetadataStore) -> None:
    await store.publish([draft("alpha", "one"), draft("waiting", "one", activate=False)])
    for skill_id, failure in (("main/alpha", Conflict), ("main/waiting", Conflict), ("main/none", NotFound)):
        with pytest.raises(failure):
            await store.restore(skill_id, "ann")
    assert (await store.head()).seq == 2


async def test_a_version_that_is_only_kept_leaves_a_deleted_skill_deleted(store: MetadataStore) -> None:
    await publish_versions(store, 2)
    await store.deactivate("main/alpha", "ann")
    await store.publish([draft(text="later", activate=False)])
    await store.publish([draft(text="worse", grade="quarantined")])

    assert ((await alpha(store)).status, (await alpha(store)).deleted_version) == ("inactive", 2)
    assert (await store.restore("main/alpha", "ann")).version == 2


async def test_what_was_restored_serves_its_tools_again(store: MetadataStore) -> None:
    await store.publish([draft(tools=[tool("run")])])
    await store.deactivate("main/alpha", "ann")
    await store.restore("main/alpha", "ann")
    rows = [msgspec.json.decode(row.data) for row in await store.tail(0, 10) if row.topic == "tools"]
    assert [row["tools"] for row in rows] == [["run"], [], ["run"]]


async def test_a_removed_skill_is_gone_and_its_numbers_are_never_used_again(
    store: MetadataStore, reopen: Reopen
) -> None:
    await publish_versions(store, 3)
    await store.publish([draft("beta", "one", source_path="beta")])
    await store.publish([draft("alpha", "four", source_path="alpha", tools=[tool("run")])])
    await store.record([invocation(1, "main/alpha"), invocation(2, "main/beta")])

    removed = await store.remove("main/alpha", "ann")

    for each in (store, await reopen()):
        assert list(await skills(each)) == ["main/beta"]
        assert await each.versions("main/alpha") == []
        assert await each.usage("main/alpha") == []
        assert list(await each.ledger("folder")) == ["beta"]
        assert len(await each.usage("main/beta")) == 1
        for attempt in (
            each.version("main/alpha", 1),
            each.activate("main/alpha", 1, "ann"),
            each.deactivate("main/alpha", "ann"),
            each.restore("main/alpha", "ann"),
            each.remove("main/alpha", "ann"),
            each.pin("main/alpha", 1, True, "ann"),
            each.prune_versions("main/alpha", 1),
        ):
            with pytest.raises(NotFound):
                await attempt
    assert len(await store.invocations(InvocationQuery(10))) == 2, "who called what stays known"

    again = (await store.publish([draft(text="text 1")]))[0]
    assert (removed.version, again.version, again.changed) == (4, 5, True)
    back = await alpha(store)
    assert (back.status, back.pinned, await numbers(store)) == ("active", (), [5])
    rows = await store.tail(0, 100)
    assert [row.kind for row in rows[-4:]] == ["tools.changed", "skill.removed", "tools.changed", "skill.published"]
    assert rows[-3].skill is not None
    assert (rows[-3].skill.status, rows[-3].skill.last_version) == ("removed", 4)
    assert_linked(rows, (await store.head()).epoch)


async def test_what_comes_after_a_removal_is_as_new_whatever_was_there(store: MetadataStore) -> None:
    await store.publish([draft(text="one", visibility="private")])
    await store.remove("main/alpha", "ann")
    await store.publish([draft(text="two", activate=False)])
    skill = await alpha(store)
    assert (skill.status, skill.visibility, skill.last_version) == ("draft", "public", 2)


async def test_a_deleted_a_quarantined_and_a_waiting_skill_can_be_removed(store: MetadataStore) -> None:
    await store.publish([
        draft("gone", "one"),
        draft("bad", "one", grade="quarantined"),
        draft("waiting", "one", activate=False),
    ])  # fmt: skip
    await store.deactivate("main/gone", "ann")
    for name in ("gone", "bad", "waiting"):
        assert (await store.remove(f"main/{name}", "ann")).version == 1
    assert await skills(store) == {}


async def test_removing_puts_the_ledger_back_so_that_the_folder_is_read_as_new(store: MetadataStore) -> None:
    await store.publish([draft("alpha", source_path="a"), draft("alpha", source_path="twin")])
    await store.note([LedgerEntry("other", "x", "d", "main/alpha", ()), LedgerEntry("other", "y", "d", None, ())])
    await store.remove("main/alpha", "ann")
    assert await store.ledger("folder") == {}
    assert set(await store.ledger("other")) == {"y"}


async def test_pins_are_kept_in_order_and_survive_every_other_change(store: MetadataStore, reopen: Reopen) -> None:
    await publish_versions(store, 3)
    for number in (3, 1):
        pinned = await store.pin("main/alpha", number, True, "ann")
        assert (pinned.version, pinned.changed) == (number, True)
    head = await store.head()
    assert (await store.pin("main/alpha", 3, True, "ann")).changed is False
    assert (await store.pin("main/alpha", 2, False, "ann")).changed is False
    assert await store.head() == head

    await store.publish([draft(text="text 4")])
    await store.activate("main/alpha", 2, "ann")
    await store.deactivate("main/alpha", "ann")
    await store.restore("main/alpha", "ann")
    assert (await alpha(await reopen())).pinned == (1, 3)

    await store.pin("main/alpha", 1, False, "ann")
    assert (await alpha(store)).pinned == (3,)
    pins = [
        (row.kind, msgspec.json.decode(row.data)["pinned"]) for row in await store.tail(0, 100) if "pin" in row.kind
    ]
    assert pins == [("skill.pinned", [3]), ("skill.pinned", [1, 3]), ("skill.unpinned", [3])]
    with pytest.raises(NotFound):
        await store.pin("main/alpha", 9, True, "ann")


async def test_one_version_is_removed_for_good_unless_something_needs_it(store: MetadataStore, reopen: Reopen) -> None:
    await publish_versions(store, 4)
    await store.activate("main/alpha", 2, "ann")
    await store.pin("main/alpha", 3, True, "ann")
    head = await store.head()
    for needed, reason in ((2, "active"), (3, "pinned")):
        with pytest.raises(Conflict, match=reason):
            await store.remove_version("main/alpha", needed, "ann")
    for skill_id, number in (("main/alpha", 9), ("main/none", 1)):
        with pytest.raises(NotFound):
            await store.remove_version(skill_id, number, "ann")
    assert await store.head() == head

    removed = await store.remove_version("main/alpha", 4, "ann")

    (row,) = await store.tail(head.seq, 10)
    told = msgspec.json.decode(row.data)
    assert (row.kind, row.seq, told["versions"], told["by"]) == ("skill.pruned", removed.seq, [4], "ann")
    assert (removed.version, removed.digest) == (4, f"sha256:{sha256('text 4')}")
    other = await reopen()
    assert [version.version for version in await other.versions("main/alpha")] == [3, 2, 1]
    assert sha256("text 4") not in {name async for name in other.blobs_in_use()}
    assert (await store.publish([draft(text="text 4")]))[0].version == 5
    assert row.skill is not None
    assert row.skill.active == await store.version("main/alpha", 2)


async def test_the_version_that_a_restore_or_a_draft_needs_is_not_removed(store: MetadataStore) -> None:
    await publish_versions(store, 2)
    await store.deactivate("main/alpha", "ann")
    await store.publish([draft("waiting", activate=False)])
    for skill_id, number, reason in (("main/alpha", 2, "restore"), ("main/waiting", 1, "waits")):
        with pytest.raises(Conflict, match=reason):
            await store.remove_version(skill_id, number, "ann")
    await store.remove_version("main/alpha", 1, "ann")
    assert await numbers(store) == [2]
    assert (await store.restore("main/alpha", "ann")).version == 2


async def test_pruning_keeps_the_newest_the_active_and_the_pinned_and_says_what_went(store: MetadataStore) -> None:
    await publish_versions(store, 8)
    await store.pin("main/alpha", 3, True, "ann")
    await store.activate("main/alpha", 2, "ann")

    assert await store.prune_versions("main/alpha", 3) == 3

    assert await numbers(store) == [8, 7, 6, 3, 2]
    head = await store.head()
    (row,) = await store.tail(head.seq - 1, 10)
    assert (row.kind, msgspec.json.decode(row.data)["versions"]) == ("skill.pruned", [1, 4, 5])
    assert row.skill == await alpha(store)
    assert await store.prune_versions("main/alpha", 3) == 0
    assert await store.head() == head, "nothing went, nothing is told"
    with pytest.raises(NotFound):
        await store.activate("main/alpha", 1, "ann")
    assert (await store.publish([draft(text="next")]))[0].version == 9
    assert await store.prune_versions("main/alpha", 0) == 4, "the newest always stays"
    assert await numbers(store) == [9, 3]
    with pytest.raises(NotFound):
        await store.prune_versions("main/none", 3)


async def test_pruning_keeps_what_a_restore_would_bring_back(store: MetadataStore) -> None:
    await publish_versions(store, 3)
    await store.activate("main/alpha", 1, "ann")
    await store.deactivate("main/alpha", "ann")
    assert await store.prune_versions("main/alpha", 1) == 1
    assert await numbers(store) == [3, 1]
    assert (await store.restore("main/alpha", "ann")).version == 1


async def test_blobs_in_use_are_those_of_every_version_that_is_left(store: MetadataStore) -> None:
    await publish_versions(store, 3)
    for first in range(0, 250, 25):
        await store.publish([draft(f"skill-{n}", f"body {n}") for n in range(first, first + 25)])
    await store.publish([draft("bad", "worse", grade="quarantined")])
    await store.deactivate("main/skill-1", "ann")
    await store.remove("main/skill-2", "ann")
    await store.prune_versions("main/alpha", 2)

    used = {name async for name in store.blobs_in_use()}

    left = ["text 2", "text 3", "worse", *(f"body {n}" for n in range(250) if n != 2)]
    assert used == {sha256(text) for text in left}


async def test_of_two_replicas_that_prune_pin_and_activate_at_once_no_one_loses_the_version(
    store: MetadataStore, reopen: Reopen
) -> None:
    """A version that was pinned or activated before the pruning is kept; one that went before is not found."""
    other = await reopen()
    for round_ in range(6):
        await publish_versions(store, 4)
        oldest = (await numbers(store))[-1]
        attempts = (
            store.prune_versions("main/alpha", 1),
            other.pin("main/alpha", oldest, True, "ann"),
            other.activate("main/alpha", oldest, "ann"),
        )
        _, *outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        skill = await alpha(store)
        for outcome in outcomes:
            assert not isinstance(outcome, BaseException) or isinstance(outcome, ServiceError)
        left = await numbers(store)
        assert set(skill.pinned) <= set(left), round_
        assert skill.active is None or skill.active.version in left
        if oldest in skill.pinned:
            await store.pin("main/alpha", oldest, False, "ann")
