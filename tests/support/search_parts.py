"""Skills and ports for tests of search; the fakes record and can be told to fail or to wait."""

import asyncio
from collections.abc import Mapping, Sequence

from services.failures import Unavailable
from services.models import Change, Grade, Skill, Status, ToolSpec, Version, Visibility
from services.ports import Hit, VectorIndex
from services.search.hash_embed import HashEmbedder


def skill(
    name: str,
    description: str,
    *,
    seq: int = 1,
    owner: str = "main",
    status: Status = "active",
    grade: Grade = "strict",
    visibility: Visibility = "public",
    tags: Sequence[str] = (),
    tools: Sequence[ToolSpec] = (),
) -> Skill:
    version = Version(
        version=1,
        digest="sha256:" + "0" * 64,
        grade=grade,
        description=description,
        frontmatter={"name": name, "description": description, "tags": list(tags)},
        manifest=(),
        tools=tuple(tools),
        diagnostics=(),
        created_at="2026-11-21T00:00:00.000Z",
        created_by="test",
        source="test",
    )
    return Skill(f"{owner}/{name}", owner, name, visibility, status, seq, 1, version)


def change(seq: int, after: Skill | None) -> Change:
    return Change(
        id=f"e-{seq}-00000000",
        prev="",
        seq=seq,
        topic="skills",
        kind="skill.published",
        dep="skill",
        owner=after.owner if after else "main",
        visibility="public",
        at="2026-11-21T00:00:00.000Z",
        data=b"{}",
        skill=after,
    )


def everyone(_: Skill) -> bool:
    return True


class VectorShelf:
    """A `VectorStore` in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], bytes] = {}

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]:
        return {key: self.rows[model, key] for key in keys if (model, key) in self.rows}

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None:
        self.rows |= {(model, key): vector for key, vector in vectors.items()}


class WatchedEmbedder(HashEmbedder):
    """Records the texts it embeds; `gate` holds it while clear, `failures` fail that many calls."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("the model is away")
        self.texts += texts
        return await super().embed(texts)


class FailingIndex:
    """A real index whose next `failures` upserts fail; `gate` holds writes while clear, `searches` counts."""

    def __init__(self, inner: VectorIndex) -> None:
        self._inner = inner
        self.failures = 0
        self.searches = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def upsert(self, vectors: Mapping[str, bytes]) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Unavailable("the index is away")
        await self._inner.upsert(vectors)

    async def delete(self, ids: Sequence[str]) -> None:
        await self.gate.wait()
        await self._inner.delete(ids)

    async def search(self, vector: bytes, limit: int) -> list[Hit]:
        self.searches += 1
        return await self._inner.search(vector, limit)

    async def count(self) -> int:
        return await self._inner.count()

    async def close(self) -> None:
        await self._inner.close()
