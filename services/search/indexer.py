"""Keeps a vector index equal to the documents it was told of, in the background."""

import asyncio
import contextlib
import heapq
from typing import NamedTuple

import structlog

from services import metrics
from services.ports import Embedder, VectorIndex
from services.search.stored_vectors import StoredVectors, VectorStore

log = structlog.get_logger(__name__)

_BATCH_MAX = 64
_RETRY_MAX_S = 30.0


class _Wanted(NamedTuple):
    text: str | None
    """None: the document is gone."""
    seq: int


class VectorIndexer:
    """One task that embeds and writes what changed, newest change first.

    What is still to do is one entry per document, so it is bounded by the catalog. A batch that
    fails is tried again after `retry_first_s`, then twice that, up to 30 s, for as long as it takes.
    """

    def __init__(
        self, store: VectorStore, embedder: Embedder, index: VectorIndex, *, retry_first_s: float = 0.2
    ) -> None:
        self._vectors = StoredVectors(store, embedder)
        self._index = index
        self._retry_first_s = retry_first_s
        self._todo: dict[str, _Wanted] = {}
        self._text_of: dict[str, str] = {}  # what the index holds
        self._seq = 0
        self._failures = 0
        self._revision = 0
        self._has_caught_up_once = False
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, id_: str, text: str, seq: int) -> None:
        if id_ in self._todo or self._text_of.get(id_) != text:
            self._todo[id_] = _Wanted(text, seq)
        self.advance(seq)

    def remove(self, id_: str, seq: int) -> None:
        if id_ in self._todo or id_ in self._text_of:
            self._todo[id_] = _Wanted(None, seq)
        self.advance(seq)

    def advance(self, seq: int) -> None:
        """Everything up to change `seq` has been given to this indexer."""
        self._seq = max(self._seq, seq)
        if self._task is not None:
            self._work.set()

    def restart(self, seq: int) -> None:
        """Changes are numbered on from `seq`, which may be less than what they had reached."""
        self._seq = seq
        self._todo = {id_: wanted._replace(seq=seq) for id_, wanted in self._todo.items()}

    def start(self) -> None:
        """From here on the owned task works; `close()` ends it."""
        self._task = asyncio.create_task(self._run(), name="vector indexer")
        self._work.set()

    @property
    def applied_seq(self) -> int:
        """The index holds every change up to and including this one."""
        return min((wanted.seq for wanted in self._todo.values()), default=self._seq + 1) - 1

    @property
    def revision(self) -> int:
        """Moves whenever the answers of the index may."""
        return self._revision

    @property
    def has_caught_up_once(self) -> bool:
        """False while the documents known at the start are still being embedded."""
        return self._has_caught_up_once

    @property
    def is_failing(self) -> bool:
        return self._failures > 0

    @property
    def count(self) -> int:
        return len(self._text_of)

    async def reached(self, seq: int) -> None:
        """Returns when the index holds change `seq`; the caller bounds the wait."""
        while self.applied_seq < seq:
            await self._progress.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._todo:
                try:
                    await self._index_batch()
                except Exception:
                    metrics.index_failures.inc()
                    delay_s = min(self._retry_first_s * 2.0**self._failures, _RETRY_MAX_S)
                    log.exception("search index update failed", to_do=len(self._todo), retry_in_s=delay_s)
                    self._failures = min(self._failures + 1, 16)
                    await asyncio.sleep(delay_s)
                else:
                    self._failures = 0
                self._report()
            self._has_caught_up_once = True
            self._report()

    def _report(self) -> None:
        metrics.index_seq.set(self.applied_seq)
        self._progress.set()
        self._progress.clear()

    async def _index_batch(self) -> None:
        # The newest first: somebody may be waiting for what was just published, nobody for the start.
        batch = dict(heapq.nlargest(_BATCH_MAX, self._todo.items(), key=lambda item: item[1].seq))
        texts = {id_: wanted.text for id_, wanted in batch.items() if wanted.text is not None}
        gone = [id_ for id_, wanted in batch.items() if wanted.text is None]
        if texts:
            vectors = await self._vectors.of(list(texts.values()))
            await self._index.upsert(dict(zip(texts, vectors, strict=True)))
            self._text_of |= texts
        if gone:
            await self._index.delete(gone)
            for id_ in gone:
                self._text_of.pop(id_, None)
        self._revision += 1
        for id_, wanted in batch.items():
            if self._todo.get(id_) is wanted:  # else it changed again meanwhile
                del self._todo[id_]
