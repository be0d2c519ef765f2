"""Every kind of `MetadataStore`, for the suites that all of them must pass."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.ports import MetadataStore
from tests.support.stores import AnyStore, open_store

Reopen = Callable[[], Awaitable[MetadataStore]]


@pytest.fixture
async def reopen(store_url: str) -> AsyncIterator[Reopen]:
    """Opens the database once more; every store that was opened is closed after the test."""
    opened: list[AnyStore] = []

    async def opening() -> MetadataStore:
        opened.append(await open_store(store_url))
        return opened[-1]

    yield opening
    for store in opened:
        await store.close()


@pytest.fixture
async def store(reopen: Reopen) -> MetadataStore:
    return await reopen()
