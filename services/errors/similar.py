"""Which known patterns are like a new one: half by meaning, half by words.

The words' half is the BM25 score as a share of what the known pattern scores against itself, but
never more than the share of the new one's words that it knows: 1 means "the same words", however
many patterns there are, and a short general pattern is not like every long one. Neither half is sure enough to act
on: over errors whose cause is unknown, similarity told right from wrong in 60 to 70 % of cases
(research/vector.md, section 4). A similar pattern's solution is a suggestion with its score.
"""

import asyncio
from collections.abc import Mapping

from cachetools import LRUCache

from services.errors.patterns import words_of
from services.failures import ServiceError
from services.ports import Embedder, Hit
from services.search.lexical import LexicalIndex, terms
from services.search.memory_index import MemoryIndex
from services.search.stored_vectors import StoredVectors, VectorStore

SCORE_MIN = 0.5
# A warm model takes 3 ms; one that must be loaded first is not waited for, but is there next time.
_EMBED_S = 0.03
_CANDIDATES = 16
_BATCH = 64
_VECTORS_CACHED_MAX = 256


class SimilarPatterns:
    """Patterns by incident. `replace` makes them known by their words, `embed` by their meaning too."""

    def __init__(self, store: VectorStore, embedder: Embedder) -> None:
        self._embedder = embedder
        self._stored = StoredVectors(store, embedder)
        self._patterns: dict[str, str] = {}
        self._lexical = LexicalIndex()
        self._index = MemoryIndex(embedder.dim)
        self._embedded: set[str] = set()
        self._queries: LRUCache[str, bytes] = LRUCache(_VECTORS_CACHED_MAX)

    async def replace(self, patterns: Mapping[str, str]) -> None:
        """From now on exactly these; one call at a time. A pattern never changes under its id."""
        gone = [id_ for id_ in self._patterns if id_ not in patterns]
        for id_ in gone:
            self._lexical.remove(id_, 0)
        for id_, pattern in patterns.items():
            if id_ not in self._patterns:
                self._lexical.put(id_, words_of(pattern), 0)
        self._patterns = dict(patterns)
        self._embedded.difference_update(gone)
        await self._index.delete(gone)
        await self._lexical.refresh()

    async def embed(self) -> None:
        """Gives a vector to every pattern that has none. Raises `Unavailable`; what was made is kept."""
        missing = [id_ for id_ in self._patterns if id_ not in self._embedded]
        for at in range(0, len(missing), _BATCH):
            texts = {id_: self._patterns[id_] for id_ in missing[at : at + _BATCH] if id_ in self._patterns}
            vectors = await self._stored.of(list(texts.values()))
            made = {id_: vector for id_, vector in zip(texts, vectors, strict=True) if id_ in self._patterns}
            await self._index.upsert(made)
            self._embedded.update(made)

    async def like(self, pattern: str, limit: int) -> list[Hit]:
        """At most `limit` with `SCORE_MIN` or more, best first; by words alone while there is no vector."""
        if not self._patterns:
            return []
        by_words = self._by_words(pattern)
        by_meaning = await self._by_meaning(pattern)
        hits = []
        for id_ in by_words.keys() | by_meaning.keys():
            score = by_words.get(id_, 0.0)
            if by_meaning and id_ in self._embedded:
                score = (score + by_meaning.get(id_, 0.0)) / 2
            if score >= SCORE_MIN and id_ in self._patterns:
                hits.append(Hit(id_, round(score, 4)))
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:limit]

    async def close(self) -> None:
        await self._lexical.close()
        await self._index.close()

    def _by_words(self, pattern: str) -> dict[str, float]:
        shares = {}
        asked = set(terms(words_of(pattern)))
        for id_, score in self._lexical.search(words_of(pattern), _CANDIDATES):
            known = words_of(self._patterns.get(id_, ""))
            [itself] = self._lexical.search(known, 1) or [Hit(id_, score)]
            shares[id_] = min(1.0, score / itself.score, len(asked.intersection(terms(known))) / len(asked))
        return shares

    async def _by_meaning(self, pattern: str) -> dict[str, float]:
        if not self._embedded:
            return {}
        try:
            vector = self._queries.get(pattern)
            if vector is None:
                async with asyncio.timeout(_EMBED_S):
                    [vector] = await self._embedder.embed([pattern])
                self._queries[pattern] = vector
        except (ServiceError, TimeoutError):
            return {}
        hits = await self._index.search(vector, _CANDIDATES)
        return {id_: max(0.0, score) for id_, score in hits}
