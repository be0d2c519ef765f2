"""What replicas know of each other through every `MetadataStore`: who holds a lease, and the ranking of tools."""

import msgspec
import pytest

from services.ports import MetadataStore
from tests.contract.conftest import Reopen

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
