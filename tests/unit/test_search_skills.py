import asyncio
import math
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.failures import Invalid, TooLarge
from services.models import Skill, ToolSpec
from services.search.memory_index import MemoryIndex
from services.search.search import CATCH_UP_S, QUERY_BYTES_MAX, SkillSearch
from tests.support.search_parts import FailingIndex, VectorShelf, WatchedEmbedder, change, everyone, skill

pytestmark = pytest.mark.anyio

HELLO = skill("hello-world", "Greets a person by name.", seq=1)
CSV = skill("csv-data-summarizer", "Summarizes tabular data in CSV files with statistics.", seq=2)
REVIEW = skill("code-review", "Reviews source code for bugs and style.", seq=3)


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Parts:
    def __init__(self) -> None:
        self.clock = _Clock()
        self.embedder = WatchedEmbedder()
        self.index = FailingIndex(MemoryIndex(self.embedder.dim))
        self.search = SkillSearch(VectorShelf(), self.embedder, self.index, clock=self.clock, retry_first_s=0.001)

    async def caught_up(self) -> None:
        """Waits until an answer is hybrid and knows every change."""
        async with asyncio.timeout(5):
            while self.search.statistics()["mode"] != "hybrid":  # noqa: ASYNC110  # its surface has no event for this
                await asyncio.sleep(0)


@pytest.fixture
async def parts() -> AsyncIterator[_Parts]:
    parts = _Parts()
    yield parts
    await parts.search.close()


def _names(hits: object) -> list[str]:
    assert isinstance(hits, list)
    return [hit.skill.name for hit in hits]


async def test_finds_by_words_while_the_catalog_is_still_being_embedded(parts: _Parts) -> None:
    parts.embedder.gate.clear()
    parts.search.load([HELLO, CSV, REVIEW], 3)
    parts.search.start()
    answer = await parts.search.search("summarize csv", 5, everyone)
    assert (answer.mode, answer.index_seq, _names(answer.hits)) == ("lexical", 3, ["csv-data-summarizer"])
    parts.embedder.gate.set()
    await parts.caught_up()
    answer = await parts.search.search("summarize csv", 5, everyone)
    assert (answer.mode, answer.index_seq, answer.hits[0].skill) == ("hybrid", 3, CSV)


async def test_the_first_search_waits_for_the_index_of_words_however_long_it_takes(parts: _Parts) -> None:
    parts.embedder.gate.clear()
    parts.search.load([skill(f"s{n:03}", f"Serves number{n}.", seq=n + 1) for n in range(300)], 300)
    thread, held = ThreadPoolExecutor(1), threading.Event()
    asyncio.get_running_loop().set_default_executor(thread)
    busy = asyncio.create_task(asyncio.to_thread(held.wait, 5))
    searching = asyncio.create_task(parts.search.search("number7", 5, everyone))
    done, _ = await asyncio.wait([searching], timeout=2 * CATCH_UP_S)  # past the time that later searches wait
    assert not done
    held.set()
    async with asyncio.timeout(5):
        assert _names((await searching).hits) == ["s007"]
        await busy


async def test_a_skill_published_a_moment_ago_is_found_by_the_next_search(parts: _Parts) -> None:
    parts.search.load([HELLO], 1)
    parts.search.start()
    await parts.caught_up()
    parts.index.gate.clear()
    parts.search.apply([change(4, skill("release-digest", "Writes release notes.", seq=4))])
    searching = asyncio.create_task(parts.search.search("release notes", 1, everyone))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not searching.done()
    parts.index.gate.set()
    answer = await searching
    assert (_names(answer.hits), answer.index_seq, answer.mode) == (["release-digest"], 4, "hybrid")
    assert answer.hits[0].dense is not None


async def test_a_search_waits_a_bounded_time_for_the_index_and_tells_how_far_it_is(parts: _Parts) -> None:
    parts.search.load([HELLO], 1)
    parts.search.start()
    await parts.caught_up()
    await parts.search.search("release notes", 1, everyone)
    parts.embedder.gate.clear()
    parts.search.apply([change(4, skill("release-digest", "Writes release notes.", seq=4))])
    async with asyncio.timeout(5):
        answer = await parts.search.search("release notes", 2, everyone)
    assert answer.index_seq == 3
    assert _names(answer.hits)[0] == "release-digest"
    parts.embedder.gate.set()


@pytest.mark.parametrize(
    "after",
    [
        skill("code-review", "Reviews source code.", seq=4, status="inactive"),
        skill("code-review", "Reviews source code.", seq=4, status="quarantined", grade="quarantined"),
        skill("code-review", "Reviews source code.", seq=4, grade="quarantined"),
        skill("code-review", "Reviews source code.", seq=4, status="draft"),
        Skill("main/code-review", "main", "code-review", "public", "active", 4, 1, None),
    ],
    ids=["inactive", "quarantined", "quarantined grade", "draft", "no active version"],
)
async def test_a_skill_that_is_no_longer_served_is_gone_from_answers_at_once(parts: _Parts, after: Skill) -> None:
    parts.search.load([HELLO, REVIEW], 3)
    parts.search.start()
    await parts.caught_up()
    parts.index.gate.clear()
    parts.search.apply([change(4, after)])
    answer = await parts.search.search("review source code", 5, everyone)
    assert (_names(answer.hits), answer.index_seq) == (["hello-world"], 3)
    parts.index.gate.set()


async def test_skills_that_are_not_served_at_the_start_are_not_indexed(parts: _Parts) -> None:
    parts.search.load([HELLO, skill("broken", "Greets a person.", seq=2, status="quarantined")], 2)
    parts.search.start()
    await parts.caught_up()
    assert _names((await parts.search.search("greets a person", 5, everyone)).hits) == ["hello-world"]
    assert parts.search.statistics()["documents"] == 1


async def test_limit_counts_only_what_the_caller_sees(parts: _Parts) -> None:
    others = [skill(f"greeter-{n:03}", "Greets a person by name.", seq=n + 1, owner="other") for n in range(250)]
    mine = skill("odd-one", "Polishes shoes.", seq=300, owner="mine")
    parts.search.load([*others, mine], 300)
    parts.search.start()
    await parts.caught_up()
    answer = await parts.search.search("greets a person", 3, lambda skill: skill.owner == "mine")
    assert _names(answer.hits) == ["odd-one"]
    assert answer.tokens_saved == 0


async def test_a_cached_query_still_asks_who_may_see_what(parts: _Parts) -> None:
    private = skill("secret-review", "Reviews source code.", seq=4, owner="mine", visibility="private")
    parts.search.load([HELLO, REVIEW, private], 4)
    parts.search.start()
    await parts.caught_up()
    seen = await parts.search.search("review source code", 5, everyone)
    unseen = await parts.search.search("review source code", 5, lambda skill: skill.visibility == "public")
    assert parts.index.searches == 1
    assert "secret-review" in _names(seen.hits)
    assert "secret-review" not in _names(unseen.hits)


async def test_a_result_is_reused_until_the_index_changes_or_two_minutes_pass(parts: _Parts) -> None:
    parts.search.load([HELLO, CSV], 2)
    parts.search.start()
    await parts.caught_up()
    await parts.search.search("csv", 5, everyone)
    await parts.search.search("  csv ", 5, everyone)
    assert parts.index.searches == 1
    parts.search.apply([change(5, REVIEW)])
    await parts.search.search("csv", 5, everyone)
    assert parts.index.searches == 2
    parts.clock.now += 121
    await parts.search.search("csv", 5, everyone)
    assert parts.index.searches == 3
    assert parts.embedder.texts.count("csv") == 1


async def test_a_model_that_fails_means_an_answer_by_words_not_an_error(parts: _Parts) -> None:
    parts.search.load([HELLO, CSV], 2)
    parts.search.start()
    await parts.caught_up()
    parts.embedder.failures = 1
    answer = await parts.search.search("csv files", 5, everyone)
    assert (answer.mode, _names(answer.hits)) == ("lexical", ["csv-data-summarizer"])
    assert parts.search.statistics()["searches_without_vectors"] == 1
    parts.clock.now += 5
    assert (await parts.search.search("csv files", 5, everyone)).mode == "hybrid"


async def test_hits_are_cut_to_the_token_budget_and_the_saving_is_counted(parts: _Parts) -> None:
    parts.search.load([HELLO, CSV, REVIEW], 3)
    parts.search.start()
    await parts.caught_up()
    cost = {
        each.name: math.ceil(len(f'{{"id":"{each.id}","description":"{each.active.description}"}},') / 4)
        for each in (HELLO, CSV, REVIEW)
        if each.active
    }
    whole = await parts.search.search("csv statistics", 5, everyone)
    assert (whole.tokens, whole.tokens_saved) == (sum(cost.values()), 0)
    first = whole.hits[0].skill.name
    cut = await parts.search.search("csv statistics", 5, everyone, token_budget=cost[first])
    assert _names(cut.hits) == [first]
    assert (cut.tokens, cut.tokens_saved) == (cost[first], sum(cost.values()) - cost[first])
    assert (await parts.search.search("csv statistics", 5, everyone, token_budget=1)).hits == []


async def test_tags_and_tools_are_matched_by_their_words(parts: _Parts) -> None:
    tool = ToolSpec("mortgage_rate", "Computes an annuity.", {"type": "object"}, ["python", "x.py:f"])
    parts.search.load([HELLO, skill("calculator", "Adds.", seq=2, tags=["arithmetic"], tools=[tool])], 2)
    parts.search.start()
    await parts.caught_up()
    for query in ("arithmetic", "mortgage", "annuities"):
        answer = await parts.search.search(query, 5, everyone)
        assert [hit.lexical is not None for hit in answer.hits if hit.skill.name == "calculator"] == [True], query


async def test_rows_older_than_the_snapshot_and_rows_without_a_skill_are_harmless(parts: _Parts) -> None:
    parts.search.load([HELLO], 7)
    parts.search.start()
    parts.search.apply([change(6, skill("hello-world", "Outdated.", seq=6)), change(8, None)])
    await parts.caught_up()
    answer = await parts.search.search("greets", 1, everyone)
    assert answer.index_seq == 8
    assert answer.hits[0].skill == HELLO


@pytest.mark.parametrize(("query", "limit"), [("  ", 5), ("x", 0), ("x", 201)])
async def test_a_blank_query_or_a_limit_out_of_range_is_refused(parts: _Parts, query: str, limit: int) -> None:
    with pytest.raises(Invalid):
        await parts.search.search(query, limit, everyone)


async def test_a_query_over_the_bound_is_refused(parts: _Parts) -> None:
    with pytest.raises(TooLarge):
        await parts.search.search("x" * (QUERY_BYTES_MAX + 1), 5, everyone)


async def test_an_empty_catalog_answers_with_nothing(parts: _Parts) -> None:
    parts.search.load([], 0)
    parts.search.start()
    answer = await parts.search.search("anything", 5, everyone)
    assert (answer.hits, answer.tokens, answer.tokens_saved) == ([], 0, 0)


async def test_statistics_tell_sizes_and_quantiles(parts: _Parts) -> None:
    parts.search.load([HELLO, CSV], 2)
    parts.search.start()
    assert parts.search.statistics()["p50_ms"] is None
    await parts.caught_up()
    await parts.search.search("csv", 5, everyone)
    told = parts.search.statistics()
    assert (told["documents"], told["vectors"], told["index_seq"]) == (2, 2, 2)
    assert told["model"] == parts.embedder.model
    assert told["p99_ms"] == 0.0
