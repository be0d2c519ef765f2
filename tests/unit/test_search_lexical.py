import asyncio

import pytest

from services.search.lexical import LexicalIndex, terms

pytestmark = pytest.mark.anyio


def test_english_words_are_stemmed_and_fillers_dropped() -> None:
    assert terms("How do I convert the files?") == ["convert", "file"]
    assert terms("converts") == terms("converting") == terms("Converted")
    assert "the" not in terms("the report")


def test_names_are_split_at_hyphens_underscores_and_humps() -> None:
    assert terms("csv-data_summarizer parseJson") == terms("csv data summarizer parse json")


def test_languages_with_a_sign_in_their_name_keep_it() -> None:
    assert terms("C# and C++") == ["c#", "c++"]


def test_chinese_is_cut_into_pairs_of_characters() -> None:
    assert terms("数据分析CSV") == ["数据", "据分", "分析", "csv"]
    assert terms("码") == ["码"]


def test_full_width_letters_match_plain_ones() -> None:
    assert terms("\uff23\uff33\uff36") == ["csv"]


async def test_finds_chinese_text_by_a_part_of_it() -> None:
    index = LexicalIndex()
    index.put("a", "对表格数据进行汇总分析", 1)
    index.put("b", "代码审查", 2)
    await index.refresh()
    assert [hit.id for hit in index.search("数据分析", 5)] == ["a"]


async def test_answers_do_not_change_before_a_refresh_and_seq_says_so() -> None:
    index = LexicalIndex()
    index.put("a", "alpha", 1)
    await index.refresh()
    index.put("b", "alpha beta", 2)
    assert index.seq == 1
    assert [hit.id for hit in index.search("beta", 5)] == []
    await index.refresh()
    assert index.seq == 2
    assert [hit.id for hit in index.search("beta", 5)] == ["b"]


async def test_a_change_that_touches_no_text_moves_seq_without_a_build() -> None:
    index = LexicalIndex()
    index.put("a", "alpha", 1)
    await index.refresh()
    before = index.built_revision
    index.advance(9)
    index.remove("unknown", 10)
    await index.refresh()
    assert (index.seq, index.built_revision) == (10, before)


async def test_a_removed_document_is_not_found_again() -> None:
    index = LexicalIndex()
    index.put("a", "alpha", 1)
    await index.refresh()
    index.remove("a", 2)
    await index.refresh()
    assert index.search("alpha", 5) == []
    assert index.seq == 2


async def test_an_empty_index_and_unknown_words_find_nothing() -> None:
    index = LexicalIndex()
    await index.refresh()
    assert index.search("alpha", 5) == []
    index.put("a", "the of and", 1)
    index.put("b", "beta", 1)
    await index.refresh()
    assert index.search("gamma the", 5) == []


async def test_limit_keeps_the_best() -> None:
    index = LexicalIndex()
    for number in range(20):
        index.put(f"d{number:02}", "common " + "rare " * number + "filler " * (20 - number), number)
    await index.refresh()
    assert [hit.id for hit in index.search("rare", 2)] == ["d19", "d18"]


async def test_many_documents_are_built_off_the_loop_once_for_all_who_wait() -> None:
    index = LexicalIndex()
    for number in range(300):
        index.put(f"d{number:03}", f"word{number} shared", number)
    waiting = [asyncio.create_task(index.refresh()) for _ in range(5)]
    await asyncio.sleep(0)  # the waiters run,
    await asyncio.sleep(0)  # then the build they share
    builds = [task for task in asyncio.all_tasks() if task.get_name() == "lexical index"]
    index.put("late", "latecomer", 300)
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
    assert len(builds) == 1
    assert index.seq == 299
    async with asyncio.timeout(5):
        await index.refresh()
    assert [hit.id for hit in index.search("latecomer", 5)] == ["late"]


async def test_a_cancelled_waiter_does_not_stop_the_build_and_close_waits_for_it() -> None:
    index = LexicalIndex()
    for number in range(300):
        index.put(f"d{number:03}", f"word{number}", number)
    waiter = asyncio.create_task(index.refresh())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    async with asyncio.timeout(5):
        await index.close()
    assert [hit.id for hit in index.search("word7", 1)] == ["d007"]
