"""What replicas know of each other through every `MetadataStore`: who holds a lease, the ranking of tools, reloads."""

import msgspec
import pytest

from services.ports import MetadataStore
from tests.contract.conftest import Reopen
from tests.support.drafts import draft

pytestmark = pytest.mark.anyio


async def test_the_holder_of_a_lease_is_known_until_it_ends(store: MetadataStore, reopen: Reopen) -> None:
    other = await reopen()
    assert await other.lease_holder("replica:a") is None
    assert await store.acquire_lease("replica:a", "http://10.0.0.1:8080", 30)
    assert await other.lease_holder("replica:a") == "http://10.0.0.1:8080"
    await store.release_lease("replica:a", "http://10.0.0.1:8080")
    assert await other.lease_holder("replica:a") is None
    assert await store.acquire_lease("replica:b", "gone", -1)
    assert await other.lease_holder("replica:b") is None, "it has run out"


async def test_a_ranking_of_tools_is_a_change_that_carries_it(store: MetadataStore, reopen: Reopen) -> None:
    other = await reopen()
    assert await other.tool_ranking() == ()
    assert await store.rank_tools(["main_b", "main_a"]) == 1
    assert await store.rank_tools(["main_a"]) == 2
    assert await other.tool_ranking() == ("main_a",)
    changes = await other.tail(0, 10)
    assert [(change.topic, change.kind, change.visibility) for change in changes] == [
        ("tools", "tools.ranked", "private")
    ] * 2
    assert msgspec.json.decode(changes[0].data) == {"tools": ["main_b", "main_a"]}


async def test_a_reload_is_told_to_who_may_see_the_skill_and_changes_nothing(
    store: MetadataStore, reopen: Reopen
) -> None:
    other = await reopen()
    await store.publish([draft()])
    before = await other.snapshot()
    assert await store.note_reload("reload.skill", "main/alpha", "ann", {"changed": 1}) == 2
    assert await store.note_reload("cache.invalidated", None, "bob", {"invalidated": 7}) == 3
    skill, everything = await other.tail(1, 10)
    assert (skill.topic, skill.kind, skill.dep, skill.owner) == (
        "reloads",
        "reload.skill",
        "reloads:main/alpha",
        "main",
    )
    assert (everything.kind, everything.dep, everything.owner) == ("cache.invalidated", "reloads", "")
    assert {skill.visibility, everything.visibility} == {"private"}
    assert msgspec.json.decode(skill.data) == {"skill": "main/alpha", "by": "ann", "changed": 1}
    assert msgspec.json.decode(everything.data) == {"skill": None, "by": "bob", "invalidated": 7}
    assert (await other.snapshot()).skills == before.skills
