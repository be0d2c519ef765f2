"""The truth of a deployment on the backend that `storage_backend` names: the one place that knows them all."""

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gateway.closing import closing
from services.failures import Unavailable
from services.ports import AuditStore, IncidentStore, MetadataStore, RunStore, Swept
from services.settings import Settings
from services.storage.audit import SqlAudit
from services.storage.blobs_local import LocalBlobs
from services.storage.blobs_table import TableBlobs
from services.storage.incidents import SqlIncidents
from services.storage.migrations import Migration
from services.storage.runs import SqlRuns
from services.storage.sql import SqlStore

if TYPE_CHECKING:
    from services.storage.aws import AwsPlace
    from services.storage.blobs_s3 import S3Blobs
    from services.storage.dynamodb import DynamoStore
    from services.storage.readable_s3 import ReadableCopies

T = TypeVar("T", bound="SqlStore | DynamoStore")


class Storage(NamedTuple):
    """The truth of a deployment, on one backend."""

    store: MetadataStore
    incidents: IncidentStore
    runs: RunStore
    audit: AuditStore
    blobs: "LocalBlobs | TableBlobs | S3Blobs"
    copies: "Callable[[str], ReadableCopies] | None" = None
    """For a replica's id, what writes copies for people that nothing reads back."""
    notifies: bool = False
    """True for a database that tells whoever listens of its commits."""


async def open_storage(settings: Settings, stack: AsyncExitStack) -> Storage:
    """What `storage_backend` names, closed at the end of the stack. Raises `Unavailable`."""
    return await _BACKENDS[settings.storage_backend](settings, stack)


async def _open_local(settings: Settings, stack: AsyncExitStack) -> Storage:
    """A database, and files in the data folder or rows where replicas need not share a folder."""
    store = _kept_store(stack, await SqlStore.open(settings.resolved_database_url))
    blobs = TableBlobs(store) if store.database.shared else LocalBlobs(settings.data_dir / "blobs")
    closing(stack, "blobs", blobs.close)
    notifies = store.database.shared
    return Storage(store, SqlIncidents(store), SqlRuns(store), SqlAudit(store), blobs, notifies=notifies)


async def _open_aws(settings: Settings, stack: AsyncExitStack) -> Storage:
    with _aws_extra():
        from services.storage.blobs_s3 import S3Blobs  # noqa: PLC0415  # an extra
        from services.storage.dynamodb import DynamoStore  # noqa: PLC0415  # the same
        from services.storage.dynamodb_audit import DynamoAudit  # noqa: PLC0415  # the same
        from services.storage.dynamodb_incidents import DynamoIncidents  # noqa: PLC0415  # the same
        from services.storage.dynamodb_runs import DynamoRuns  # noqa: PLC0415  # the same
        from services.storage.readable_s3 import ReadableCopies  # noqa: PLC0415  # the same
    place = aws_place(settings)
    # Blobs first: nothing that the store does at its end needs them.
    blobs = await S3Blobs.open(place)
    stack.push_async_callback(blobs.close)
    store = _kept_store(stack, await DynamoStore.open(place))
    copies = partial(ReadableCopies, blobs, store, place.skills_prefix)
    return Storage(store, DynamoIncidents(store), DynamoRuns(store), DynamoAudit(store), blobs, copies)


def _kept_store(stack: AsyncExitStack, store: T) -> T:
    closing(stack, "store", store.close)
    return store


async def prepare_storage(settings: Settings) -> list[str]:
    """Makes the tables and the bucket of the backend `s3` where they are missing; answers what was made."""
    with _aws_extra():
        from services.storage.preparation import prepare  # noqa: PLC0415  # an extra
    return await prepare(aws_place(settings))


_BACKENDS = {"local": _open_local, "s3": _open_aws}


def aws_place(settings: Settings) -> "AwsPlace":
    with _aws_extra():
        from services.storage.aws import AwsPlace  # noqa: PLC0415  # an extra
    return AwsPlace(
        region=settings.aws_region,
        bucket=settings.s3_bucket,
        skills_table=settings.dynamodb_skills_table,
        invocations_table=settings.dynamodb_invocations_table,
        skills_prefix=settings.s3_prefix,
        invocation_days=settings.invocation_keep_days,
        s3_endpoint=settings.s3_endpoint_url,
        dynamodb_endpoint=settings.dynamodb_endpoint_url,
    )


@contextmanager
def _aws_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("aiobotocore", "botocore"):
            raise
        raise Unavailable("STORAGE_BACKEND=s3 needs the extra `aws`: install skillwire[aws]") from error


async def migrate_database(settings: Settings, *, dry_run: bool) -> Migration:
    """For `skillwire migrate`. Raises `Unavailable`."""
    if settings.storage_backend == "s3":
        raise Unavailable("the tables on DynamoDB have had one schema only: there is nothing to migrate")
    return await SqlStore.migrate(settings.resolved_database_url, dry_run=dry_run)


async def sweep_blobs(settings: Settings, older_than_s: float) -> Swept:
    """For `skillwire sweep`; replicas may run meanwhile. Raises `Unavailable`."""
    async with AsyncExitStack() as stack:
        storage = await open_storage(settings, stack)
        return await storage.blobs.sweep(storage.store.blobs_in_use, older_than_s)
