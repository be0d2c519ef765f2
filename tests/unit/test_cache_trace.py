"""One key followed through the tiers."""

import pytest

from services.cache.codec import Record
from services.cache.trace import TRACES_MAX, TraceEvent
from services.failures import Exhausted, Unavailable
from tests.support.cached import CODEC, DEP, KEY, L2_KEY, SPACE, cached_replica, settled
from tests.support.listed_log import EPOCH

pytestmark = pytest.mark.anyio


async def test_a_trace_tells_all_that_happens_to_its_key_and_nothing_else() -> None:
    events: list[TraceEvent] = []

    async def other() -> bytes:
        return b""

    def kinds() -> list[str]:
        found: list[str] = [event.kind for event in events]
        events.clear()
        return found

    async with cached_replica(entries_max=1) as replica:
        await replica.read()
        await replica.read()
        with replica.cache.trace(KEY, events.append):
            await replica.read()
            await replica.read()
            assert kinds() == ["l1_hit", "l1_hit"]

            replica.log.commit(DEP)
            await replica.feed.tail()
            replica.second.forged[L2_KEY] = CODEC.encode(Record(EPOCH, 0, (DEP,), b"old"), L2_KEY, 60)
            await replica.read()
            await settled()
            assert [event.facts["asof"] for event in events if event.kind == "load_finished"] == [1]
            assert kinds() == [
                "l1_refused", "l1_miss", "l2_refused", "load_started", "load_finished", "stored", "stored",
            ]  # fmt: skip

            await replica.cache.get(SPACE, "other", other)
            assert kinds() == ["evicted"]
            replica.second.forged.clear()
            replica.truth.error = Unavailable("away")
            with pytest.raises(Unavailable):
                await replica.read()
            assert kinds() == ["l1_miss", "l2_miss", "load_started", "load_failed"]
        replica.truth.error = None
        await replica.read()
        assert events == []


async def test_a_watcher_that_fails_breaks_no_read() -> None:
    def fail(_: TraceEvent) -> None:
        raise RuntimeError("nobody is watching")

    async with cached_replica() as replica:
        with replica.cache.trace(KEY, fail):
            assert await replica.read() == (b"as of 0", "l3")


async def test_only_so_many_traces_at_once() -> None:
    async with cached_replica() as replica:
        traces = [replica.cache.trace(KEY, lambda _: None) for _ in range(TRACES_MAX)]
        for trace in traces:
            trace.__enter__()
        with pytest.raises(Exhausted), replica.cache.trace(KEY, lambda _: None):
            pass
        for trace in traces:
            trace.__exit__(None, None, None)
        with replica.cache.trace(KEY, lambda _: None):
            pass
