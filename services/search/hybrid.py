"""One ranking from two: what a text means and which words it shares.

Each leg is standardised over the candidates (z-score) before they are weighed. Rank fusion
(RRF) was measured too and hurts when one leg is much better than the other (MetaTool R@1
.543 -> .496), while weighted z-scores gained 2 to 5 points of R@5 on every data set tried.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

DENSE_WEIGHT = 0.7


class Ranked(NamedTuple):
    """`dense` is a cosine, `lexical` a BM25 score; None where that leg did not find the document."""

    id: str
    score: float
    dense: float | None
    lexical: float | None


def fuse(dense: Mapping[str, float], lexical: Mapping[str, float]) -> list[Ranked]:
    """Best first; equal scores in order of id, so that the same query gives the same page."""
    ids = sorted(dense.keys() | lexical.keys())
    # A document out of the dense leg's reach is no nearer than the farthest one in it.
    floor = min(dense.values(), default=0.0)
    by_meaning = _standardised([dense.get(id_, floor) for id_ in ids])
    by_words = _standardised([lexical.get(id_, 0.0) for id_ in ids])
    ranked = [
        Ranked(id_, DENSE_WEIGHT * meaning + (1 - DENSE_WEIGHT) * words, dense.get(id_), lexical.get(id_))
        for id_, meaning, words in zip(ids, by_meaning, by_words, strict=True)
    ]
    ranked.sort(key=lambda hit: -hit.score)  # stable, and they come in order of id
    return ranked


def _standardised(values: list[float]) -> list[float]:
    """In plain Python, which takes 0.1 ms for 300 candidates; numpy would take a third of that once it is there."""
    mean = math.fsum(values) / len(values) if values else 0.0
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) if values else 0.0
    # A leg that sees no difference has no say; the bound keeps float noise from deciding.
    return [(value - mean) / spread for value in values] if spread > 1e-9 else [0.0] * len(values)
