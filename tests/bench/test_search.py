"""Search end to end (budget V4): embedding, both legs, fusion. `SKILLS` picks the catalog's size."""

import asyncio
import os
import platform
import statistics as stats
import time
from pathlib import Path

import pytest

from services.search.embed import UseEmbedder
from services.search.memory_index import MemoryIndex
from services.search.search import SkillSearch
from tests.support.search_parts import VectorShelf, change, everyone, skill

pytestmark = [pytest.mark.anyio, pytest.mark.bench]

VERBS = ["convert", "summarize", "review", "deploy", "translate", "plot", "audit", "migrate", "lint", "schedule"]
THINGS = ["CSV files", "pull requests", "container images", "meeting notes", "SQL queries", "web pages", "invoices"]
PLACES = ["on Kubernetes", "for Python", "in a spreadsheet", "with GitHub Actions", "for Azure", "in a terminal"]


def _description(number: int) -> str:
    verb, thing = VERBS[number % 10], THINGS[number // 10 % 7]
    place = PLACES[number // 70 % 6]
    return f"{verb.capitalize()} {thing} {place}. Use when somebody asks to {verb} {thing} of project {number}."


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _told(milliseconds: list[float]) -> str:
    ordered = sorted(milliseconds)
    return f"p50 {stats.median(ordered):.2f} ms, p99 {ordered[int(len(ordered) * 0.99) - 1]:.2f} ms"


async def _timed(search: SkillSearch, queries: list[str]) -> list[float]:
    durations = []
    for query in queries:
        started = time.perf_counter()
        answer = await search.search(query, 10, everyone)
        durations.append((time.perf_counter() - started) * 1000)
        assert answer.mode == "hybrid"
    return durations


@pytest.mark.parametrize("size", [400, 2400])
@pytest.mark.timeout(300)
async def test_search_latency_and_memory(size: int) -> None:
    before_mb = _resident_mb(os.getpid())
    embedder = UseEmbedder(idle_s=60)
    search = SkillSearch(VectorShelf(), embedder, MemoryIndex(embedder.dim))
    skills = [skill(f"skill-{n}", _description(n), seq=n + 1) for n in range(size)]
    started = time.perf_counter()
    search.load(skills, size)
    search.start()
    start_ms = (time.perf_counter() - started) * 1000
    while search.statistics()["mode"] != "hybrid":  # noqa: ASYNC110  # its surface has no event for this
        await asyncio.sleep(0.01)
    embed_s = time.perf_counter() - started
    await search.search("warm up", 10, everyone)
    fresh = [f"{VERBS[n % 10]} the {THINGS[n % 7]} number {n}" for n in range(300)]
    new = await _timed(search, fresh)
    again = await _timed(search, fresh[-50:] * 4)
    published = []
    for seq in range(size + 1, size + 21):
        started = time.perf_counter()
        search.apply([change(seq, skill(f"new-{seq}", f"Publishes thing {seq}.", seq=seq))])
        answer = await search.search(f"publish thing {seq}", 5, everyone)
        published.append((time.perf_counter() - started) * 1000)
        assert answer.index_seq == seq
    assert embedder.child_pid is not None
    print(f"\n{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {size} skills")
    print(f"start {start_ms:.0f} ms; all vectors after {embed_s:.1f} s (child's start included)")
    print(f"new query {_told(new)}; cached query {_told(again)}; publish, then found {_told(published)}")
    print(
        f"memory: +{_resident_mb(os.getpid()) - before_mb:.0f} MB here, child {_resident_mb(embedder.child_pid):.0f} MB"
    )
    await search.close()
    await embedder.close()
