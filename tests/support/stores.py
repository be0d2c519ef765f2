"""Stores of every kind by a URL, so that processes can be told where to publish."""

from pathlib import Path

from services.ports import MetadataStore
from services.storage.blobs_local import LocalBlobs
from services.storage.blobs_s3 import S3Blobs
from services.storage.blobs_table import TableBlobs
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_incidents import DynamoIncidents
from services.storage.dynamodb_runs import DynamoRuns
from services.storage.incidents import SqlIncidents
from services.storage.runs import SqlRuns
from services.storage.sql import SqlStore
from tests.support.aws import is_place, place_of

AnyStore = SqlStore | DynamoStore
AnyBlobs = LocalBlobs | TableBlobs | S3Blobs


async def open_store(url: str) -> AnyStore:
    return await DynamoStore.open(place_of(url)) if is_place(url) else await SqlStore.open(url)


def incidents_of(store: AnyStore) -> SqlIncidents | DynamoIncidents:
    return DynamoIncidents(store) if isinstance(store, DynamoStore) else SqlIncidents(store)


def runs_of(store: AnyStore) -> SqlRuns | DynamoRuns:
    return DynamoRuns(store) if isinstance(store, DynamoStore) else SqlRuns(store)


async def open_blobs(store: MetadataStore, url: str, data_dir: Path) -> AnyBlobs:
    """Where a replica on this store keeps its blobs."""
    if is_place(url):
        return await S3Blobs.open(place_of(url))
    assert isinstance(store, SqlStore)
    return TableBlobs(store) if store.database.shared else LocalBlobs(data_dir / "blobs")
