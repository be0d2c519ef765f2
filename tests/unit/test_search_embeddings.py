import zlib

import numpy as np
import pytest

from services.failures import Unavailable
from services.search.hash_embed import HashEmbedder
from services.search.stored_vectors import StoredVectors
from tests.support.search_parts import VectorShelf, WatchedEmbedder

pytestmark = pytest.mark.anyio

HASH_OF_CALCULATOR = 1252410973


def _cosine(a: bytes, b: bytes) -> float:
    return float(np.frombuffer(a, "<f4") @ np.frombuffer(b, "<f4"))


async def test_hash_vectors_have_unit_length_even_without_words() -> None:
    embedder = HashEmbedder()
    for vector in await embedder.embed(["summarise a table", "", "!?", "数据"]):
        assert len(vector) == embedder.dim * 4
        assert _cosine(vector, vector) == pytest.approx(1.0, abs=1e-5)


async def test_hash_vectors_are_the_same_in_every_process() -> None:
    [vector] = await HashEmbedder().embed(["calculator"])
    assert zlib.crc32(vector) == HASH_OF_CALCULATOR


async def test_hash_vectors_of_texts_that_share_letters_are_closer() -> None:
    query, near, far = await HashEmbedder().embed(["summarizing csv", "csv summarizer", "greets the world"])
    assert _cosine(query, near) > _cosine(query, far) + 0.2


async def test_a_text_is_embedded_once_whoever_asks_again() -> None:
    shelf, embedder = VectorShelf(), WatchedEmbedder()
    first = await StoredVectors(shelf, embedder).of(["a", "b", "a"])
    again = await StoredVectors(shelf, embedder).of(["b", "c", "a"])
    assert embedder.texts == ["a", "b", "c"]
    assert first[0] == first[2] == again[2]
    assert first[1] == again[0]


async def test_vectors_of_another_model_are_not_taken() -> None:
    shelf, embedder = VectorShelf(), WatchedEmbedder()
    [vector] = await StoredVectors(shelf, embedder).of(["a"])
    [(_, key)] = shelf.rows
    shelf.rows = {("other-model", key): b"\0" * len(vector)}
    assert await StoredVectors(shelf, embedder).of(["a"]) == [vector]


async def test_nothing_is_stored_when_the_model_fails() -> None:
    shelf, embedder = VectorShelf(), WatchedEmbedder()
    embedder.failures = 1
    with pytest.raises(Unavailable):
        await StoredVectors(shelf, embedder).of(["a"])
    assert shelf.rows == {}
