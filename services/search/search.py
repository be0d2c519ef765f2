"""Finding skills by what they mean and by the words they use."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import structlog
from cachetools import LRUCache, TTLCache

from services import metrics
from services.clock import Monotonic, monotonic_s
from services.failures import Invalid, ServiceError, TooLarge
from services.models import Change, Skill
from services.ports import CatalogSnapshot, Embedder, VectorIndex
from services.search.documents import Document, document_of
from services.search.hybrid import Ranked, fuse
from services.search.indexer import VectorIndexer
from services.search.lexical import LexicalIndex
from services.search.stored_vectors import VectorStore

log = structlog.get_logger(__name__)

QUERY_BYTES_MAX = 8 * 1024
LIMIT_MAX = 200
CATCH_UP_S = 0.25
# A model that was unloaded needs about a second to come back.
_DENSE_TIMEOUT_S = 3.0
_DENSE_COOL_DOWN_S = 2.0
# 100 candidates a leg rank as well as all of 418 skills do (MRR .823 against .822).
_CANDIDATES = 200
_LEGS_CACHED_MAX = 64
_LEGS_TTL_S = 120.0
_QUERY_VECTORS_MAX = 1024
_DURATIONS_KEPT = 1000

Mode = Literal["hybrid", "lexical"]


class SearchHit(NamedTuple):
    """`score` compares hits of one answer only; `dense` is a cosine, `lexical` a BM25 score."""

    skill: Skill
    score: float
    dense: float | None
    lexical: float | None


class SearchAnswer(NamedTuple):
    """`index_seq` is the newest change that this answer is sure to know of.

    `tokens` estimates what the hits' ids and descriptions, as JSON, cost a context window,
    `tokens_saved` what listing every skill the caller sees would cost beyond that.
    """

    hits: list[SearchHit]
    index_seq: int
    mode: Mode
    tokens: int
    tokens_saved: int


class _Legs(NamedTuple):
    """Candidates of both legs before anybody's visibility, so that callers can share them."""

    dense: Mapping[str, float] | None
    lexical: Mapping[str, float]


class SkillSearch:
    """Hybrid search over the active skills; a `ChangeSink` of the log.

    Without vectors (still embedding after the start, embedder or index away) it answers from the
    lexical leg alone and says `mode="lexical"`; it never fails for that. What may be found is
    decided by the newest state applied, so a deleted skill is gone from answers at once.
    """

    def __init__(
        self,
        store: VectorStore,
        embedder: Embedder,
        index: VectorIndex,
        *,
        clock: Monotonic = monotonic_s,
        retry_first_s: float = 0.2,
    ) -> None:
        self._embedder = embedder
        self._index = index
        self._clock = clock
        self._indexer = VectorIndexer(store, embedder, index, retry_first_s=retry_first_s)
        self._lexical = LexicalIndex()
        self._documents: dict[str, Document] = {}
        self._seq = 0
        self._dense_again_at = 0.0
        self._degraded = 0
        self._query_vectors: LRUCache[str, bytes] = LRUCache(_QUERY_VECTORS_MAX)
        self._legs_cache: TTLCache[tuple[object, ...], _Legs] = TTLCache(_LEGS_CACHED_MAX, _LEGS_TTL_S, timer=clock)
        self._durations_s: deque[float] = deque(maxlen=_DURATIONS_KEPT)

    def load(self, skills: Sequence[Skill], seq: int) -> None:
        """Takes the catalog as of change `seq`, before the changes after it."""
        for skill in skills:
            self._take(skill, skill.seq)
        self._advance(seq)

    def start(self) -> None:
        """From here on what was taken gets its vectors, in the background."""
        self._indexer.start()

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.seq <= self._seq:
                continue
            if change.skill is not None:
                self._take(change.skill, change.seq)
            self._advance(change.seq)

    def restart(self, snapshot: CatalogSnapshot) -> None:
        seq = snapshot.position.seq
        self._lexical.restart(seq)
        self._indexer.restart(seq)
        self._seq = seq
        now = {skill.id: skill for skill in snapshot.skills}
        for id_ in self._documents.keys() - now.keys():
            del self._documents[id_]
            self._lexical.remove(id_, seq)
            self._indexer.remove(id_, seq)
        for skill in now.values():
            self._take(skill, seq)

    async def search(
        self, query: str, limit: int, sees: Callable[[Skill], bool], token_budget: int | None = None
    ) -> SearchAnswer:
        """Up to `limit` skills for which `sees` holds, best first, cut before the first that would
        exceed `token_budget`.

        Waits at most `CATCH_UP_S` for the index to hold the newest change applied. Raises
        `Invalid` for a blank query or a limit outside 1..`LIMIT_MAX`, `TooLarge` for a query over
        `QUERY_BYTES_MAX`.
        """
        started = self._clock()
        text = _checked(query, limit)
        await self._catch_up()
        answer = await self._answer(text, limit, sees, token_budget)
        duration_s = self._clock() - started
        self._durations_s.append(duration_s)
        metrics.search_seconds.observe(duration_s)
        return answer

    def statistics(self) -> dict[str, Any]:
        """For people: sizes, the model, and the last 1000 searches' milliseconds (None before the first)."""
        ordered = sorted(self._durations_s)

        def quantile_ms(share: float) -> float | None:
            return round(ordered[int(share * (len(ordered) - 1))] * 1000, 3) if ordered else None

        return {
            "documents": len(self._documents),
            "vectors": self._indexer.count,
            "model": self._embedder.model,
            "mode": "hybrid" if self._dense_is_usable() else "lexical",
            "index_seq": min(self._lexical.seq, self._indexer.applied_seq),
            "searches_without_vectors": self._degraded,
            "p50_ms": quantile_ms(0.50),
            "p95_ms": quantile_ms(0.95),
            "p99_ms": quantile_ms(0.99),
        }

    async def close(self) -> None:
        """Ends its own tasks; the embedder and the index are their opener's to close."""
        await self._indexer.close()
        await self._lexical.close()

    def _take(self, skill: Skill, seq: int) -> None:
        before = self._documents.get(skill.id)
        document = document_of(skill)
        if document is None:
            self._documents.pop(skill.id, None)
            self._lexical.remove(skill.id, seq)
            self._indexer.remove(skill.id, seq)
            return
        self._documents[skill.id] = document
        if before is None or before.words != document.words:
            self._lexical.put(skill.id, document.words, seq)
        self._indexer.put(skill.id, document.meaning, seq)

    def _advance(self, seq: int) -> None:
        self._seq = max(self._seq, seq)
        self._lexical.advance(seq)
        self._indexer.advance(seq)

    def _dense_is_usable(self) -> bool:
        return self._indexer.has_caught_up_once and self._clock() >= self._dense_again_at

    async def _catch_up(self) -> None:
        """Past the deadline the search goes on with what there is; the answer's `index_seq` tells."""
        if self._lexical.built_revision == 0:
            await self._lexical.refresh()  # the first search after a start: there is nothing to go on with
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._lexical.refresh()
                # A failing index would make every search pay the whole wait for nothing.
                if self._dense_is_usable() and not self._indexer.is_failing:
                    await self._indexer.reached(self._seq)
        except TimeoutError:
            log.info("search index is behind", seq=self._seq, applied=self._indexer.applied_seq)

    async def _answer(
        self, text: str, limit: int, sees: Callable[[Skill], bool], token_budget: int | None
    ) -> SearchAnswer:
        candidates = max(_CANDIDATES, limit)
        while True:
            lexical_seq, dense_seq = self._lexical.seq, self._indexer.applied_seq
            legs = await self._legs(text, candidates)
            # From here to the answer nothing awaits: who sees what cannot change in between.
            visible = {id_: document for id_, document in self._documents.items() if sees(document.skill)}
            dense = {id_: score for id_, score in (legs.dense or {}).items() if id_ in visible}
            lexical = {id_: score for id_, score in legs.lexical.items() if id_ in visible}
            longest = max(len(legs.dense or ()), len(legs.lexical))
            # Where the caller sees little of the catalog, the first candidates may all be others'.
            if len(dense.keys() | lexical.keys()) >= min(limit, len(visible)) or longest < candidates:
                break
            candidates *= 4
        hits, tokens = _cut(fuse(dense, lexical)[:limit], visible, token_budget)
        saved = max(0, sum(document.tokens for document in visible.values()) - tokens)
        if legs.dense is None:
            return SearchAnswer(hits, lexical_seq, "lexical", tokens, saved)
        return SearchAnswer(hits, min(lexical_seq, dense_seq), "hybrid", tokens, saved)

    async def _legs(self, text: str, candidates: int) -> _Legs:
        if not self._dense_is_usable():
            return _Legs(None, dict(self._lexical.search(text, candidates)))
        key = (text, candidates, self._indexer.revision, self._lexical.built_revision)
        legs = self._legs_cache.get(key)
        if legs is None:
            lexical = dict(self._lexical.search(text, candidates))
            legs = _Legs(await self._dense(text, candidates), lexical)
            if legs.dense is not None:
                self._legs_cache[key] = legs
        return legs

    async def _dense(self, text: str, candidates: int) -> Mapping[str, float] | None:
        try:
            async with asyncio.timeout(_DENSE_TIMEOUT_S):
                vector = self._query_vectors.get(text)
                if vector is None:
                    [vector] = await self._embedder.embed([text])
                    self._query_vectors[text] = vector
                return dict(await self._index.search(vector, candidates))
        except (ServiceError, TimeoutError) as failure:
            self._degraded += 1
            metrics.search_without_vectors.inc()
            self._dense_again_at = self._clock() + _DENSE_COOL_DOWN_S
            log.warning("search without vectors", reason=str(failure) or "timed out")
            return None


def _cut(
    ranked: Sequence[Ranked], documents: Mapping[str, Document], token_budget: int | None
) -> tuple[list[SearchHit], int]:
    hits: list[SearchHit] = []
    tokens = 0
    for found in ranked:
        document = documents[found.id]
        if token_budget is not None and tokens + document.tokens > token_budget:
            break
        tokens += document.tokens
        hits.append(SearchHit(document.skill, found.score, found.dense, found.lexical))
    return hits, tokens


def _checked(query: str, limit: int) -> str:
    text = " ".join(query.split())
    if not text:
        raise Invalid("a query needs at least one word")
    if len(text.encode()) > QUERY_BYTES_MAX:
        raise TooLarge(f"a query of {len(text.encode())} bytes; {QUERY_BYTES_MAX} is the most")
    if not 1 <= limit <= LIMIT_MAX:
        raise Invalid(f"limit {limit}; 1 to {LIMIT_MAX} are possible")
    return text
