"""Stores of every kind by a URL, so that processes can be told where to publish."""

from pathlib import Path

from sqlalchemy import select

from services.ports import MetadataStore
from services.storage import schema
from services.storage.audit import SqlAudit
from services.storage.blobs_local import LocalBlobs
from services.storage.blobs_s3 import S3Blobs
from services.storage.blobs_table import TableBlobs
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_audit import DynamoAudit
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


def audit_of(store: AnyStore) -> SqlAudit | DynamoAudit:
    return DynamoAudit(store) if isinstance(store, DynamoStore) else SqlAudit(store)


def runs_of(store: AnyStore) -> SqlRuns | DynamoRuns:
    return DynamoRuns(store) if isinstance(store, DynamoStore) else SqlRuns(store)


async def open_blobs(store: MetadataStore, url: str, data_dir: Path) -> AnyBlobs:
    """Where a replica on this store keeps its blobs."""
    if is_place(url):
        return await S3Blobs.open(place_of(url))
    assert isinstance(store, SqlStore)
    return TableBlobs(store) if store.database.shared else LocalBlobs(data_dir / "blobs")


async def everything_in(blobs: AnyBlobs, store: MetadataStore, data_dir: Path) -> set[str]:
    """The name of all that is stored for blobs, of unfinished writes and older versions as well."""
    if isinstance(blobs, LocalBlobs):
        return {path.name for path in (data_dir / "blobs").rglob("*") if path.is_file()}
    if isinstance(blobs, S3Blobs):
        uploads = await blobs.s3.call("list_multipart_uploads", Bucket=blobs.bucket)
        names = {upload["Key"] for upload in uploads.get("Uploads", ())}
        return names | {version["Key"].rpartition("/")[2] async for version in blobs.listed("")}
    assert isinstance(store, SqlStore)
    async with store.reading() as connection:
        return set(await connection.scalars(select(schema.blobs.c.sha256)))
