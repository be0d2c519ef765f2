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
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        model = self._embedder.model
        vectors = dict(await self._store.vectors(model, list(dict.fromkeys(keys))))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            embedded = dict(zip(missing, await self._embedder.embed(list(missing.values())), strict=True))
            await self._store.put_vectors(model, embedded)
            vectors |= embedded
        return [vectors[key] for key in keys]
