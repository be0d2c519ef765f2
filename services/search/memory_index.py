"""Exact nearest neighbours in one matrix: at catalog sizes faster than any index server.

Measured on two shared cores (2026-11): 0.6 ms a search over 10,000 vectors of 384 numbers and
7.7 ms over 100,000, with recall 1 by construction; graph indexes only win beyond that.
"""

from collections.abc import Mapping, Sequence

from services.failures import Invalid
from services.ports import Hit

_NUMBER_BYTES = 4


class MemoryIndex:
    """Lives and ends with the process. Rows are unordered: a deleted one is filled with the last."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._row_bytes = dim * _NUMBER_BYTES
        self._rows = bytearray()
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}

    async def upsert(self, vectors: Mapping[str, bytes]) -> None:
        """All or none: a vector of another size raises `Invalid`."""
        for vector in vectors.values():
            self._check(vector)
        for id_, vector in vectors.items():
            row = self._row_of.get(id_)
            if row is None:
                self._row_of[id_] = len(self._ids)
                self._ids.append(id_)
                self._rows += vector
            else:
                self._rows[self._bytes_of(row)] = vector

    async def delete(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            row = self._row_of.pop(id_, None)
            if row is None:
                continue
            last = self._ids.pop()
            if last != id_:
                self._rows[self._bytes_of(row)] = self._rows[-self._row_bytes :]
                self._ids[row] = last
                self._row_of[last] = row
            del self._rows[-self._row_bytes :]

    async def search(self, vector: bytes, limit: int) -> list[Hit]:
        self._check(vector)
        if not self._ids:
            return []
        import numpy as np  # noqa: PLC0415  # 8 MB and a tenth of a second, for those who search

        matrix = np.frombuffer(self._rows, dtype="<f4").reshape(-1, self._dim)
        # Not `matrix @ vector`: that wakes BLAS's threads, which wait for cores that others hold
        # (whole searches on two shared cores: p99 4 to 10 ms, once 88, against 4 to 6; 2026-11-21).
        scores = np.vecdot(matrix, np.frombuffer(vector, dtype="<f4"))
        rows = np.argpartition(scores, -limit)[-limit:] if limit < len(scores) else np.arange(len(scores))
        hits = [Hit(self._ids[row], float(scores[row])) for row in rows]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits

    async def count(self) -> int:
        return len(self._ids)

    async def close(self) -> None:
        """Gives the memory back."""
        self._ids.clear()
        self._row_of.clear()
        self._rows = bytearray()

    def _bytes_of(self, row: int) -> slice:
        return slice(row * self._row_bytes, (row + 1) * self._row_bytes)

    def _check(self, vector: bytes) -> None:
        if len(vector) != self._row_bytes:
            raise Invalid(f"a vector of {len(vector)} bytes; this index holds {self._dim} numbers of 4 bytes")
