"""Embeddings that outlive the process: a text is embedded once per model, whoever asks."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from services.ports import Embedder


class VectorStore(Protocol):
    """The part of `MetadataStore` that search needs."""

    async def vectors(self, model: str, keys: Sequence[str]) -> dict[str, bytes]: ...

    async def put_vectors(self, model: str, vectors: Mapping[str, bytes]) -> None: ...


class StoredVectors:
    """Vectors by the SHA-256 of their text, in the store."""

    def __init__(self, store: VectorStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder

    async def of(self, texts: Sequence[str]) -> list[bytes]:
        """In the order of `texts`, at most as many as one `embed` takes. Raises `Unavailable`."""
        vectors = await self.stored(texts)
        vectors |= await self.made([text for text in dict.fromkeys(texts) if text not in vectors])
        return [vectors[text] for text in texts]

    async def stored(self, texts: Sequence[str]) -> dict[str, bytes]:
        """By text, without those that were never embedded. Raises `Unavailable`."""
        text_of = {_key(text): text for text in texts}
        found = await self._store.vectors(self._embedder.model, list(text_of))
        return {text_of[key]: vector for key, vector in found.items()}

    async def made(self, texts: Sequence[str]) -> dict[str, bytes]:
        """By text, embedded and stored; at most as many as one `embed` takes. Raises `Unavailable`."""
        if not texts:
            return {}
        vectors = dict(zip(texts, await self._embedder.embed(texts), strict=True))
        await self._store.put_vectors(self._embedder.model, {_key(text): vector for text, vector in vectors.items()})
        return vectors


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
