"""What a load reads is what its record depends on, however deep it was read."""

import asyncio

import pytest

from services.cache.deps import depends_on
from services.cache.space import Space
from services.failures import Unavailable
from tests.support.cached import DEP, SPACE, CachedReplica, cached_replica
from tests.support.listed_log import EPOCH

pytestmark = pytest.mark.anyio

LISTS = Space("list", jitter=0.0)


def deps_of(replica: CachedReplica, key: str) -> tuple[str, ...]:
    record = replica.memory.peek(key)
    assert record is not None
    assert record.epoch == EPOCH
    return record.deps


async def test_outside_of_a_load_nothing_is_noted() -> None:
    depends_on("skill:a")


async def test_deps_given_and_deps_found_are_both_kept() -> None:
    async def load() -> bytes:
        depends_on("skill:found", "skill:also")
        await asyncio.to_thread(depends_on, "skill:in-a-thread")
        async with asyncio.TaskGroup() as group:
            group.create_task(note("skill:in-a-task"))
        return b""

    async def note(dep: str) -> None:
        depends_on(dep)

    async with cached_replica() as replica:
        await replica.cache.get(SPACE, "key", load, deps=("skill:given",))
        assert deps_of(replica, "key") == (
            "skill:also", "skill:found", "skill:given", "skill:in-a-task", "skill:in-a-thread",
        )  # fmt: skip


@pytest.mark.parametrize("warm", ["cold", "by get", "by peek"])
async def test_a_cached_read_inside_a_load_hands_its_deps_on_from_any_tier(warm: str) -> None:
    async with cached_replica() as replica:

        async def load() -> bytes:
            depends_on("topic:skills")
            inner = replica.cache.peek(SPACE, "detail:main/a") if warm == "by peek" else await replica.get()
            assert inner is not None
            return b"list of " + inner.value

        await replica.feed.tail()
        for _ in range(0 if warm == "cold" else 3):
            await replica.read()
        await replica.cache.get(LISTS, "list", load)
        assert deps_of(replica, "list") == (DEP, "topic:skills")

        replica.log.commit(DEP)
        await replica.feed.tail()
        if warm == "by peek":
            await replica.read()
        assert (await replica.cache.get(LISTS, "list", load)).value == b"list of as of 1"


async def test_two_loads_at_once_do_not_see_each_others_deps() -> None:
    gate = asyncio.Event()

    async def load(dep: str) -> bytes:
        depends_on(f"{dep}:before")
        await gate.wait()
        depends_on(f"{dep}:after")
        return b""

    async with cached_replica() as replica, asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(replica.cache.get(SPACE, name, lambda name=name: load(name)))  # type: ignore[misc]
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(5):
            while len(replica.memory) < 2:  # noqa: ASYNC110  # the loads' ends
                await asyncio.sleep(0)
        assert deps_of(replica, "a") == ("a:after", "a:before")
        assert deps_of(replica, "b") == ("b:after", "b:before")


async def test_what_was_made_of_a_stale_answer_is_not_kept() -> None:
    async with cached_replica() as replica:
        await replica.read()
        replica.log.commit(DEP)
        await replica.feed.tail()
        replica.truth.error = Unavailable("the blobs are away")

        async def load() -> bytes:
            return b"list of " + (await replica.get()).value

        assert (await replica.cache.get(LISTS, "list", load)).value == b"list of as of 0"
        replica.truth.error = None
        assert (await replica.cache.get(LISTS, "list", load)).value == b"list of as of 1"
