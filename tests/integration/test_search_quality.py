"""The right skill is found with the real model, in English and in Chinese, among 25."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.search.embed import UseEmbedder
from services.search.memory_index import MemoryIndex
from services.search.search import SkillSearch
from tests.support.search_parts import VectorShelf, change, everyone, skill

pytestmark = pytest.mark.anyio

DESCRIPTIONS = {
    "hello-world": "Greets a person by name. Use it to check that skills are served and called.",
    "calculator": "Evaluates arithmetic expressions exactly: sums, percentages, powers and roots.",
    "code-review": "Reviews a change to source code for bugs, security problems and readability.",
    "csv-data-summarizer": "Summarizes tabular data in CSV files: columns, statistics, missing values, outliers.",
    "release-digest": "Writes a digest of what changed in a release and translates it.",
    "commit-message": "Writes a conventional commit message from the staged changes.",
    "pdf-to-markdown": "Converts PDF documents to Markdown with tables and headings kept.",
    "secret-scan": "Finds leaked credentials, tokens and private keys in a repository.",
    "sql-tuning": "Explains slow SQL queries and proposes indexes for PostgreSQL.",
    "docker-slim": "Shrinks container images with multi-stage builds and smaller bases.",
    "meeting-minutes": "Turns a transcript of a meeting into minutes with decisions and action items.",
    "image-resize": "Resizes, crops and compresses pictures in bulk.",
    "incident-postmortem": "Writes a blameless report after an outage: timeline, causes, actions.",
    "email-drafter": "Drafts polite business e-mails in the sender's tone.",
    "unit-tests": "Writes unit tests for Python functions with pytest fixtures and edge cases.",
    "api-docs": "Generates reference documentation for a REST interface from its OpenAPI file.",
    "cloud-cost": "Finds unused cloud resources and estimates what can be saved every month.",
    "git-history": "Tells the story of a file or a line through the version history.",
    "accessibility-audit": "Checks web pages for contrast, labels and keyboard navigation.",
    "log-triage": "Groups error messages of server logs and points to the most likely cause.",
    "translation": "Translates user interface texts and keeps placeholders intact.",
    "slide-deck": "Builds presentation slides from an outline, with speaker notes.",
    "resume-review": "Improves a curriculum vitae for a given job advertisement.",
    "weather-brief": "Gives a short weather forecast for a city and a day.",
    "travel-plan": "Plans a trip with flights, hotels and a daily itinerary.",
}

QUERIES = [
    ("what is 15 percent of 240", "calculator"),
    ("statistics of a spreadsheet export", "csv-data-summarizer"),
    ("look over my pull request for vulnerabilities", "code-review"),
    ("say hi to Ada", "hello-world"),
    ("my database query takes too long", "sql-tuning"),
    ("did somebody commit a password", "secret-scan"),
    ("the image of my container is too big", "docker-slim"),
    ("summary of what was decided in the call", "meeting-minutes"),
    ("reduce our monthly bill", "cloud-cost"),
    ("is it going to rain tomorrow", "weather-brief"),
    ("计算数学表达式", "calculator"),
    ("分析 CSV 数据并给出统计", "csv-data-summarizer"),
    ("审查代码中的漏洞", "code-review"),
    ("把 PDF 转换成 Markdown", "pdf-to-markdown"),
    ("写一封商务邮件", "email-drafter"),
    ("会议纪要", "meeting-minutes"),
    ("优化慢查询", "sql-tuning"),
    ("制作演示幻灯片", "slide-deck"),
]


@pytest.fixture
async def search() -> AsyncIterator[SkillSearch]:
    embedder = UseEmbedder(idle_s=60)
    search = SkillSearch(VectorShelf(), embedder, MemoryIndex(embedder.dim))
    skills = [skill(name, text, seq=seq) for seq, (name, text) in enumerate(DESCRIPTIONS.items(), start=1)]
    search.load(skills, len(skills))
    search.start()
    async with asyncio.timeout(5):
        while search.statistics()["mode"] != "hybrid":  # noqa: ASYNC110  # its surface has no event for this
            await asyncio.sleep(0.01)
    yield search
    await search.close()
    await embedder.close()


async def test_the_right_skill_is_among_the_first_three(search: SkillSearch) -> None:
    """One of 18 may miss: this model takes a pull request's vulnerabilities for a database's."""
    missed = []
    first = 0
    for query, wanted in QUERIES:
        answer = await search.search(query, 3, everyone)
        names = [hit.skill.name for hit in answer.hits]
        first += names[0] == wanted
        if wanted not in names:
            missed.append((query, names))
    assert len(missed) <= 1, missed
    assert first >= len(QUERIES) - 3


async def test_a_chinese_skill_published_now_is_found_by_its_words_and_its_meaning(search: SkillSearch) -> None:
    new = skill("zhou-bao", "根据提交记录生成团队周报。", seq=100)
    search.apply([change(100, new)])
    for query in ("周报", "weekly report of the team"):
        answer = await search.search(query, 3, everyone)
        assert (answer.mode, answer.index_seq) == ("hybrid", 100)
        assert "zhou-bao" in [hit.skill.name for hit in answer.hits], query
