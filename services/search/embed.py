"""Sentence vectors from an offline multilingual model that lives in a child process."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from services import metrics
from services.failures import Exhausted, TooLarge, Unavailable
from services.search.model_child import ChildGone, ModelChild

log = structlog.get_logger(__name__)

TEXTS_MAX = 256
TEXT_BYTES_MAX = 8 * 1024
JOBS_WAITING_MAX = 64
# 16 descriptions keep the child busy for about 50 ms: the longest that a query waits behind a
# bulk load (tests/bench/test_search.py, 2026-11-21).
FRAME_TEXTS_MAX = 16


class _Job(NamedTuple):
    texts: Sequence[str]
    vectors: asyncio.Future[list[bytes]]


class UseEmbedder:
    """Universal Sentence Encoder, 16 languages, 512 numbers a text.

    The child starts with the first text (about a second) and ends after `idle_s` without one.
    One frame is under way at a time; texts of several callers that wait share the next one.
    A child that breaks is replaced once per frame; a frame that takes longer than `timeout_s`
    is given up and the child with it.
    """

    model = "use-multilingual-v3@0.2.1"
    dim = 512

    def __init__(self, *, idle_s: float, timeout_s: float = 10.0, start_timeout_s: float = 30.0) -> None:
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._start_timeout_s = start_timeout_s
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._child: ModelChild | None = None
        self._pump: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def child_pid(self) -> int | None:
        """None while no model is loaded."""
        return self._child.pid if self._child else None

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """At most `TEXTS_MAX` texts; the first `TEXT_BYTES_MAX` bytes of each count.

        Raises `TooLarge`, `Exhausted` when `JOBS_WAITING_MAX` frames wait, `Unavailable`.
        """
        if len(texts) > TEXTS_MAX:
            raise TooLarge(f"{len(texts)} texts at once; {TEXTS_MAX} is the most")
        vectors: list[bytes] = []
        # One frame at a time, so that a query of another caller gets in between.
        for at in range(0, len(texts), FRAME_TEXTS_MAX):
            vectors += await self._submit([_cut(text) for text in texts[at : at + FRAME_TEXTS_MAX]])
        metrics.embed_texts.inc(len(texts))
        return vectors

    async def close(self) -> None:
        """Ends the child and waits for its end; texts still waiting get `Unavailable`."""
        self._is_closed = True
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump

    async def _submit(self, texts: list[str]) -> list[bytes]:
        if self._is_closed:
            raise Unavailable("the embedder is closed")
        if len(self._waiting) >= JOBS_WAITING_MAX:
            raise Exhausted("too many texts wait for their vectors")
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        if self._pump is None:
            self._pump = asyncio.create_task(self._pump_jobs(), name="embedder")
        return await job.vectors

    async def _pump_jobs(self) -> None:
        jobs: list[_Job] = []
        try:
            while True:
                await self._wait_for_jobs()
                jobs = self._next_jobs()
                if jobs:
                    await self._serve(jobs)
        finally:
            self._is_closed = True
            for job in (*jobs, *self._waiting):
                if not job.vectors.done():
                    job.vectors.set_exception(Unavailable("the embedder was closed"))
            self._waiting.clear()
            await self._stop_child()

    async def _wait_for_jobs(self) -> None:
        while not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(self._idle_s if self._child else None):
                    await self._arrived.wait()
            except TimeoutError:
                await self._stop_child()
                log.info("sentence model unloaded", idle_s=self._idle_s)

    def _next_jobs(self) -> list[_Job]:
        jobs: list[_Job] = []
        texts = 0
        while self._waiting and texts + len(self._waiting[0].texts) <= FRAME_TEXTS_MAX:
            job = self._waiting.popleft()
            if not job.vectors.done():  # its caller may have given up
                jobs.append(job)
                texts += len(job.texts)
        return jobs

    async def _serve(self, jobs: list[_Job]) -> None:
        try:
            vectors = await self._vectors([text for job in jobs for text in job.texts])
        except Unavailable as failure:
            for job in jobs:
                if not job.vectors.done():
                    job.vectors.set_exception(Unavailable(failure.message))
            return
        at = 0
        for job in jobs:
            if not job.vectors.done():
                job.vectors.set_result(vectors[at : at + len(job.texts)])
            at += len(job.texts)

    async def _vectors(self, texts: list[str]) -> list[bytes]:
        request = json.dumps(texts).encode()
        try:
            try:
                answer = await self._exchange(request)
            except ChildGone as failure:
                log.warning("sentence model ended, starting it again", reason=str(failure))
                await self._stop_child()
                answer = await self._exchange(request)
        except (ChildGone, TimeoutError) as failure:
            await self._stop_child()
            raise Unavailable(f"the sentence model does not answer: {str(failure) or 'timed out'}") from failure
        size = self.dim * 4
        return [answer[at : at + size] for at in range(0, len(texts) * size, size)]

    async def _exchange(self, request: bytes) -> bytes:
        if self._child is None:
            self._child = await ModelChild.start()
            async with asyncio.timeout(self._start_timeout_s):
                await self._child.receive()
            log.info("sentence model loaded", model=self.model, pid=self._child.pid)
        async with asyncio.timeout(self._timeout_s):
            await self._child.send(request)
            return await self._child.receive()

    async def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()


def _cut(text: str) -> str:
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
