"""Every kind of `MetadataStore`, for the suites that all of them must pass."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.ports import MetadataStore
from services.storage.sql import SqlStore

Reopen = Callable[[], Awaitable[MetadataStore]]


@pytest.fixture
async def reopen(database_url: str) -> AsyncIterator[Reopen]:
    """Opens the database once more; every store that was opened is closed after the test."""
    opened: list[SqlStore] = []

    async def open_store() -> MetadataStore:
        opened.append(await SqlStore.open(database_url))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> MetadataStore:
    return await reopen()
