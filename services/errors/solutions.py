"""In which order solutions are told."""

import math
from collections.abc import Iterable

from services.errors.nouns import Solution

_Z = 1.96  # 95 %


def wilson(worked: int, tried: int) -> float:
    """The share of tries that worked, as low as it may really be: 1 of 1 counts less than 9 of 10."""
    if tried == 0:
        return 0.0
    share = worked / tried
    spread = _Z * math.sqrt((share * (1 - share) + _Z * _Z / (4 * tried)) / tried)
    return max(0.0, (share + _Z * _Z / (2 * tried) - spread) / (1 + _Z * _Z / tried))


def ranked(solutions: Iterable[Solution]) -> list[Solution]:
    """What worked first; of what never did, that which failed least; of equals the newest."""
    newest_first = sorted(solutions, key=lambda solution: solution.id, reverse=True)
    return sorted(newest_first, key=lambda each: (-wilson(each.worked, each.tried), each.tried - each.worked))
