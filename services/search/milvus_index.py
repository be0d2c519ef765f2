"""Nearest neighbours in Milvus (a server, a cluster, or milvus-lite's server), for catalogs beyond one process.

Needs the `milvus` extra; only `gateway.wiring` imports this file.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import numpy as np
import structlog
from pymilvus import AsyncMilvusClient, DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from services.failures import Unavailable
from services.ports import Hit

log = structlog.get_logger(__name__)

# It logs every failed call with a traceback; what fails here is raised as `Unavailable` instead.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

_ID_BYTES_MAX = 512
_EF_AT_SEARCH = 64
_LIMIT_MAX = 16_384  # Milvus's own bound on topK
# Rows that were never flushed are scanned one by one by milvus-lite (25 us each).
_ROWS_BETWEEN_FLUSHES = 512


class MilvusIndex:
    """One collection per model, HNSW over cosine; connects with the first call.

    Reads are `Bounded`: a vector may take a moment to be found (`Strong` costs 200 ms a search).
    Rows outlive this process and are shared by all replicas; a row whose skill was deleted while
    no replica ran stays, so a reader must check ids against the catalog. Every call raises
    `Unavailable` when Milvus does not answer within `timeout_s`.
    """

    def __init__(self, uri: str, *, model: str, dim: int, timeout_s: float = 5.0) -> None:
        self._uri = uri
        self._dim = dim
        self._timeout_s = timeout_s
        self._collection = f"skillwire_{re.sub(r'[^A-Za-z0-9]', '_', model)}_{dim}"
        self._client: AsyncMilvusClient | None = None
        self._is_loaded = False
        self._connecting = asyncio.Lock()
        # Concurrent writers of one collection are not safe in milvus-lite.
        self._writing = asyncio.Lock()
        self._unflushed_rows = 0

    @property
    def collection(self) -> str:
        return self._collection

    async def upsert(self, vectors: Mapping[str, bytes]) -> None:
        if not vectors:
            return
        rows = [{"id": id_, "vector": np.frombuffer(vector, dtype="<f4")} for id_, vector in vectors.items()]
        async with self._writing, self._connected() as client:
            await client.upsert(self._collection, rows)
            await self._flush_if_due(client, len(rows))

    async def delete(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        async with self._writing, self._connected() as client:
            await client.delete(self._collection, ids=list(ids))

    async def search(self, vector: bytes, limit: int) -> list[Hit]:
        limit = min(limit, _LIMIT_MAX)
        async with self._connected() as client:
            found = await client.search(
                self._collection,
                data=[np.frombuffer(vector, dtype="<f4")],
                limit=limit,
                search_params={"metric_type": "COSINE", "params": {"ef": max(_EF_AT_SEARCH, limit)}},
            )
        # For COSINE what Milvus calls a distance is the similarity.
        hits = [Hit(str(row["id"]), float(row["distance"])) for row in found[0]]
        hits.sort(key=lambda hit: (-hit.score, hit.id))
        return hits

    async def count(self) -> int:
        async with self._connected() as client:
            rows = await client.query(self._collection, filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncMilvusClient]:
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._connecting:
                    if self._client is None:
                        self._client = AsyncMilvusClient(uri=self._uri, timeout=self._timeout_s)
                    if not self._is_loaded:
                        await self._load(self._client)
                yield self._client
        except (MilvusException, TimeoutError, OSError) as failure:
            # A server that was restarted answers again only after its collection is loaded again.
            self._is_loaded = False
            raise Unavailable(f"Milvus does not answer: {str(failure) or 'timed out'}") from failure

    async def _load(self, client: AsyncMilvusClient) -> None:
        if not await client.has_collection(self._collection):
            # The asynchronous client waits for the new index with a call that milvus-lite lacks.
            await asyncio.to_thread(self._create_collection)
        await client.load_collection(self._collection)
        self._is_loaded = True

    def _create_collection(self) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES_MAX)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dim)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
        client = MilvusClient(uri=self._uri, timeout=self._timeout_s)
        try:
            client.create_collection(self._collection, schema=schema, index_params=index, consistency_level="Bounded")
        except MilvusException:
            if not client.has_collection(self._collection):  # else another replica was first
                raise
        finally:
            client.close()
        log.info("vector collection created", collection=self._collection)

    async def _flush_if_due(self, client: AsyncMilvusClient, rows: int) -> None:
        self._unflushed_rows += rows
        if self._unflushed_rows < _ROWS_BETWEEN_FLUSHES:
            return
        self._unflushed_rows = 0
        try:
            await client.flush(self._collection)
        except MilvusException as failure:
            # A cluster limits flushes to one in ten seconds and does well without ours.
            log.info("flush refused", collection=self._collection, reason=str(failure))
