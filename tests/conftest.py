"""What every test gets, no task left behind, and the databases it may ask for."""

import asyncio
import gc
import os
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.aws import AwsServer, new_deployment, running_aws
from tests.support.old_database import make_old
from tests.support.postgres import PostgresServer, new_database, running_server

# The Milvus client's gRPC hooks into fork() and then takes the processes that other tests start down.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# How long an example takes says something of the machine, nothing of the property.
settings.register_profile("skillwire", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("skillwire")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def killed_replicas() -> Iterator[None]:
    """For tests that simulate: a replica that is killed there leaves coroutines behind that will never be run.
    They go here, and not in whatever test comes after."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests; whoever stops or freezes one starts a server of its own."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database on PostgreSQL."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once on each dialect."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def old_url(database_url: str, request: pytest.FixtureRequest) -> str:
    """A database of schema 1, once on each dialect."""
    is_file = database_url.startswith("sqlite")
    return make_old(database_url, None if is_file else request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def aws() -> Iterator[AwsServer]:
    """One emulator for all tests; whoever stops one starts its own."""
    with running_aws() as server:
        yield server


@pytest.fixture
def aws_url(aws: AwsServer) -> str:
    """An empty deployment on DynamoDB and S3."""
    return new_deployment(aws.url)


@pytest.fixture(params=["sqlite", "postgres", "dynamodb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, once of each kind; `tests.support.stores` opens it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("aws_url" if request.param == "dynamodb" else "postgres_url"))
