import asyncio
from collections.abc import AsyncIterator

import pytest

from services import metrics
from services.search.indexer import VectorIndexer
from services.search.memory_index import MemoryIndex
from tests.support.search_parts import FailingIndex, VectorShelf, WatchedEmbedder

pytestmark = pytest.mark.anyio


class _Parts:
    def __init__(self) -> None:
        self.embedder = WatchedEmbedder()
        self.index = FailingIndex(MemoryIndex(self.embedder.dim))
        self.indexer = VectorIndexer(VectorShelf(), self.embedder, self.index, retry_first_s=0.001)


@pytest.fixture
async def parts() -> AsyncIterator[_Parts]:
    parts = _Parts()
    yield parts
    await parts.indexer.close()


def _counted_failures() -> float:
    return metrics.REGISTRY.get_sample_value("skillwire_index_failures_total") or 0.0


async def _reached(indexer: VectorIndexer, seq: int) -> None:
    async with asyncio.timeout(5):
        await indexer.reached(seq)


async def test_applied_seq_never_claims_a_change_that_is_not_in_the_index(parts: _Parts) -> None:
    parts.embedder.gate.clear()
    parts.indexer.put("a", "alpha", 3)
    parts.indexer.put("b", "beta", 5)
    parts.indexer.advance(8)
    parts.indexer.start()
    assert parts.indexer.applied_seq == 2
    parts.embedder.gate.set()
    await _reached(parts.indexer, 8)
    assert await parts.index.count() == 2


async def test_a_text_that_did_not_change_is_not_embedded_again(parts: _Parts) -> None:
    parts.indexer.start()
    parts.indexer.put("a", "alpha", 1)
    await _reached(parts.indexer, 1)
    revision = parts.indexer.revision
    parts.indexer.put("a", "alpha", 2)
    await _reached(parts.indexer, 2)
    assert parts.embedder.texts == ["alpha"]
    assert parts.indexer.revision == revision


async def test_a_change_that_arrives_while_the_older_text_is_embedded_wins(parts: _Parts) -> None:
    parts.indexer.start()
    parts.embedder.gate.clear()
    parts.indexer.put("a", "first words", 1)
    await asyncio.sleep(0)
    parts.indexer.put("a", "other text", 2)
    parts.embedder.gate.set()
    await _reached(parts.indexer, 2)
    [vector] = await parts.embedder.embed(["other text"])
    [hit] = await parts.index.search(vector, 1)
    assert hit.score == pytest.approx(1.0, abs=1e-5)


async def test_a_removed_document_leaves_the_index(parts: _Parts) -> None:
    parts.indexer.start()
    parts.indexer.put("a", "alpha", 1)
    parts.indexer.put("b", "beta", 2)
    await _reached(parts.indexer, 2)
    parts.indexer.remove("a", 3)
    await _reached(parts.indexer, 3)
    assert await parts.index.count() == 1


async def test_what_changed_last_is_indexed_before_the_bulk_of_the_start(parts: _Parts) -> None:
    for number in range(200):
        parts.indexer.put(f"d{number}", f"text {number}", 1)
    parts.indexer.put("new", "just published", 9)
    parts.indexer.start()
    await _reached(parts.indexer, 9)
    assert parts.embedder.texts[0] == "just published"


async def test_failures_are_counted_and_tried_again_until_they_pass(parts: _Parts) -> None:
    before = _counted_failures()
    parts.index.failures = 3
    parts.indexer.put("a", "alpha", 1)
    parts.indexer.start()
    await _reached(parts.indexer, 1)
    assert _counted_failures() == before + 3
    assert not parts.indexer.is_failing
    assert await parts.index.count() == 1


async def test_close_ends_the_task_while_an_update_hangs(parts: _Parts) -> None:
    parts.embedder.gate.clear()
    parts.indexer.put("a", "alpha", 1)
    parts.indexer.start()
    async with asyncio.timeout(5):
        await parts.indexer.close()
    assert parts.indexer.applied_seq == 0
