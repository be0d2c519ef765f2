"""What every test gets: the asyncio backend of anyio's plugin, and no task left behind."""

import asyncio
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest) -> None:
    """Fails a coroutine test that ends while a task other than the runner's own is alive."""
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("_leaked_tasks")


@pytest.fixture
async def _leaked_tasks(anyio_backend: str) -> AsyncIterator[None]:  # noqa: ARG001  # runs it on the test's loop
    yield
    leaked = [task for task in asyncio.all_tasks() if "TestRunner." not in repr(task.get_coro())]
    assert not leaked, f"tasks alive after the test: {leaked}"
