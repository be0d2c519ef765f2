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

# Of texts to be embedded: nobody waits for longer than that takes.
_BATCH_MAX = 64
# Of texts whose vectors may be stored already, as after a start all are: one query, not one for each batch.
_LOOKED_UP_MAX = 512
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
        batch = dict(heapq.nlargest(_LOOKED_UP_MAX, self._todo.items(), key=lambda item: item[1].seq))
        gone = {id_: wanted for id_, wanted in batch.items() if wanted.text is None}
        if gone:
            await self._index.delete(list(gone))
            for id_ in gone:
                self._text_of.pop(id_, None)
            self._done(gone)
        texts = list(dict.fromkeys(wanted.text for wanted in batch.values() if wanted.text is not None))
        stored = await self._vectors.stored(texts)
        await self._take(batch, stored)
        missing = [text for text in texts if text not in stored][:_BATCH_MAX]
        if missing:
            await self._take(batch, await self._vectors.made(missing))

    async def _take(self, batch: dict[str, _Wanted], vectors: dict[str, bytes]) -> None:
        """Indexes what of the batch has its vector now."""
        texts = {id_: text for id_, wanted in batch.items() if (text := wanted.text) is not None and text in vectors}
        if texts:
            await self._index.upsert({id_: vectors[text] for id_, text in texts.items()})
            self._text_of |= texts
            self._done({id_: batch[id_] for id_ in texts})

    def _done(self, batch: dict[str, _Wanted]) -> None:
        self._revision += 1
        for id_, wanted in batch.items():
            if self._todo.get(id_) is wanted:  # else it changed again meanwhile
                del self._todo[id_]
