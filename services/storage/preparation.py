"""Making in AWS what a deployment needs; whatever is there already stays as it is."""

from contextlib import AsyncExitStack
from typing import Any

from services.storage.aws import AwsPlace, Refusal, Service, open_service
from services.storage.blobs_s3 import BLOBS_PREFIX
from services.storage.dynamodb_tables import Tables, make_tables

_OWN_BUCKET = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


async def prepare(place: AwsPlace) -> list[str]:
    """The names of what was made: tables, and the bucket. Raises `Unavailable`."""
    async with AsyncExitStack() as stack:
        made = await make_tables(await open_service(stack, "dynamodb", place), Tables.of(place))
        s3 = await open_service(stack, "s3", place)
        if await _make_bucket(s3, place):
            made.append(place.bucket)
        await _configure_bucket(s3, place.bucket)
    return made


async def _make_bucket(s3: Service, place: AwsPlace) -> bool:
    where: dict[str, Any] = {}
    if place.region != "us-east-1":  # the one region that may not be named
        where = {"CreateBucketConfiguration": {"LocationConstraint": place.region}}
    try:
        await s3.call("head_bucket", Bucket=place.bucket)
    except Refusal as refusal:
        if refusal.code != "404":
            raise
    else:
        return False
    try:
        await s3.call("create_bucket", Bucket=place.bucket, **where)
    except Refusal as refusal:
        if refusal.code not in _OWN_BUCKET:  # another replica's preparation was first
            raise
        return False
    return True


async def _configure_bucket(s3: Service, bucket: str) -> None:
    """Versioning is what makes the sweeper safe (`blobs_s3.py`); the rest keeps the bucket private and small."""
    await s3.call("put_bucket_versioning", Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    await s3.call(
        "put_bucket_encryption",
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    await s3.call(
        "put_public_access_block",
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    await s3.call(
        "put_bucket_lifecycle_configuration",
        Bucket=bucket,
        LifecycleConfiguration={
            "Rules": [
                {
                    "ID": "unfinished uploads",
                    "Status": "Enabled",
                    "Filter": {"Prefix": ""},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                },
                {
                    "ID": "uploads",
                    "Status": "Enabled",
                    "Filter": {"Prefix": "uploads/"},
                    "Expiration": {"Days": 1},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
                },
                {
                    "ID": "versions that were replaced",
                    "Status": "Enabled",
                    "Filter": {"Prefix": BLOBS_PREFIX},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
                    "Expiration": {"ExpiredObjectDeleteMarker": True},
                },
            ]
        },
    )
