"""BM25 over the words of skills, for what a query names literally.

English words are stemmed; Chinese, Japanese and Korean text, which has no spaces, is cut into
pairs of characters. bm25s has no incremental update, so a change marks the index as behind and
the next `refresh` builds it anew (10 ms for 400 skills, 0.2 s for 2,500). Texts are cut into
terms by the build too, and what it needs is imported for it, so that a replica is ready without.
"""

import asyncio
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import Stemmer

from services.ports import Hit

if TYPE_CHECKING:
    import bm25s

# It sets itself to DEBUG and logs every build.
logging.getLogger("bm25s").addFilter(lambda record: record.levelno >= logging.WARNING)

# Below this a build takes less time than a thread needs to be worth its switches.
_DOCUMENTS_BUILT_INLINE_MAX = 200

_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TERM = rf"[{_CJK}]+|(?:(?![{_CJK}])[^\W_])+(?:\+\+|\#)?"  # compiled, which takes 10 ms, by the first that needs it
_IS_CJK = re.compile(rf"[{_CJK}]")
_STEM: Callable[[str], str] = Stemmer.Stemmer("english").stemWord
_FILLERS = frozenset(("how", "what", "which", "when", "who", "do", "does", "can", "i", "my", "me", "we"))


@cache
def _stopwords() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN  # noqa: PLC0415  # brings numpy with it: see above

    return _FILLERS.union(STOPWORDS_EN)


def terms(text: str, stem: Callable[[str], str] = _STEM) -> list[str]:
    """Comparable terms in order. A stemmer has state: off the event loop's thread it takes another `stem`."""
    found: list[str] = []
    stopwords = _stopwords()
    for term in re.findall(_TERM, _CAMEL_HUMP.sub(" ", unicodedata.normalize("NFKC", text)).lower()):
        if _IS_CJK.match(term):
            found += [term[i : i + 2] for i in range(len(term) - 1)] or [term]
        elif term not in stopwords:
            found.append(stem(term))
    return found


class _Document:
    """A text until the first build that has it, its terms from then on."""

    __slots__ = ("_terms", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._terms: list[str] | None = None

    def terms(self, stem: Callable[[str], str]) -> list[str]:
        if self._terms is None:
            self._terms = terms(self._text, stem)
            self._text = ""
        return self._terms


class _Built(NamedTuple):
    revision: int
    seq: int
    ids: list[str]
    scorer: "bm25s.BM25 | None"
    """None without any term to search for."""


class LexicalIndex:
    """Texts by id as of a change, and the BM25 index built from them, which may be behind."""

    def __init__(self) -> None:
        self._documents: dict[str, _Document] = {}
        self._seq = 0
        self._revision = 0
        self._built = _Built(0, 0, [], None)
        self._building: asyncio.Task[None] | None = None

    def put(self, id_: str, text: str, seq: int) -> None:
        self._documents[id_] = _Document(text)
        self._revision += 1
        self.advance(seq)

    def remove(self, id_: str, seq: int) -> None:
        if self._documents.pop(id_, None) is not None:
            self._revision += 1
        self.advance(seq)

    def advance(self, seq: int) -> None:
        """Everything up to change `seq` has been given to this index."""
        self._seq = max(self._seq, seq)

    def restart(self, seq: int) -> None:
        """Changes are numbered on from `seq`, which may be less than what they had reached."""
        self._seq = seq
        self._built = self._built._replace(seq=0)
        self._revision += 1

    @property
    def seq(self) -> int:
        """The newest change that `search` knows of."""
        return self._seq if self._built.revision == self._revision else self._built.seq

    @property
    def built_revision(self) -> int:
        """Moves whenever the answers of `search` may."""
        return self._built.revision

    async def refresh(self) -> None:
        """Returns when `search` knows what was put before this call.

        Many documents are built on a thread, one build at a time whoever asks; a cancelled caller
        stops waiting, the build goes on.
        """
        target = self._revision
        while self._built.revision < target:
            if self._building is None and len(self._documents) <= _DOCUMENTS_BUILT_INLINE_MAX:
                self._built = _build(self._revision, self._seq, self._documents, _STEM)
                return
            if self._building is None:
                self._building = asyncio.create_task(self._build_off_loop(), name="lexical index")
            await asyncio.shield(self._building)

    def search(self, query: str, limit: int) -> list[Hit]:
        """Documents that share a term with `query`, best first; the score has no upper bound."""
        built = self._built
        if built.scorer is None:
            return []
        known = [term for term in terms(query) if term in built.scorer.vocab_dict]
        if not known:
            return []
        import numpy as np  # noqa: PLC0415  # here long since, for the build

        scores = built.scorer.get_scores(known)
        rows = np.flatnonzero(scores > 0)
        if limit < len(rows):
            rows = rows[np.argpartition(scores[rows], -limit)[-limit:]]
        hits = [Hit(built.ids[row], float(scores[row])) for row in rows]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits

    async def close(self) -> None:
        """Waits for a build under way; a thread cannot be stopped."""
        if self._building is not None:
            await self._building

    async def _build_off_loop(self) -> None:
        try:
            stem = Stemmer.Stemmer("english").stemWord
            self._built = await asyncio.to_thread(_build, self._revision, self._seq, dict(self._documents), stem)
        finally:
            self._building = None


def _build(revision: int, seq: int, documents: Mapping[str, _Document], stem: Callable[[str], str]) -> _Built:
    terms_by_id = {id_: found for id_, document in documents.items() if (found := document.terms(stem))}
    if not terms_by_id:
        return _Built(revision, seq, [], None)
    import bm25s  # noqa: PLC0415  # brings numpy with it: see above

    scorer = bm25s.BM25()
    scorer.index(list(terms_by_id.values()), show_progress=False)
    return _Built(revision, seq, list(terms_by_id), scorer)
