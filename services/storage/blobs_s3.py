"""Blobs as objects of a versioned S3 bucket: `blobs/<first two hex>/<sha256>`; needs the extra `aws`.

S3 counts age from the last write of an object, so a blob is touched by copying it onto itself. The
sweeper removes an object's *versions*, by the ids that it listed: a blob that somebody touches or
writes meanwhile has another version, which the sweeper does not know and cannot remove. No lock and
no clock of ours takes part. `docs/decisions/0021-blobs-on-s3.md` has what else was thought of.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from services.failures import NotFound, Unavailable
from services.ports import Swept
from services.storage.aws import AwsPlace, Refusal, Service, open_service, server_time_s, together
from services.storage.folder import write_folder

BLOBS_PREFIX = "blobs/"
# Above it an object goes up in parts of this size, none of which has to be sent again for another's sake.
PART_BYTES = 8 * 1024 * 1024
# For one object of a request: the largest is 16 MiB.
OBJECT_TIMEOUT_S = 20.0
_AT_ONCE = 16
_DELETES_MAX = 1000
_MISSING = {"NoSuchKey", "404", "NotFound"}


class S3Blobs:
    """`BlobStore` in one bucket; open it with `S3Blobs.open`, end it with `close`."""

    def __init__(self, stack: AsyncExitStack, s3: Service, bucket: str) -> None:
        self._stack = stack
        self.s3 = s3
        self.bucket = bucket

    @classmethod
    async def open(cls, place: AwsPlace) -> "S3Blobs":
        """Raises `Unavailable` for a bucket that is missing, or does not keep versions."""
        async with AsyncExitStack() as stack:
            s3 = await open_service(stack, "s3", place)
            try:
                answer = await s3.call("get_bucket_versioning", Bucket=place.bucket)
            except Refusal as refusal:
                raise Unavailable(f"the bucket {place.bucket} cannot be used: {refusal.code}") from refusal
            if answer.get("Status") != "Enabled":
                raise Unavailable(f"the bucket {place.bucket} keeps no versions: run `skillwire init-storage`")
            return cls(stack.pop_all(), s3, place.bucket)

    async def close(self) -> None:
        await self._stack.aclose()

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        await together(self._put_or_touch, list(blobs.items()), _AT_ONCE)

    async def get(self, sha256: str) -> bytes:
        try:
            value = await self.s3.read(OBJECT_TIMEOUT_S, Bucket=self.bucket, Key=key_of(sha256))
        except Refusal as refusal:
            if refusal.code in _MISSING:
                raise NotFound(f"there is no blob {sha256}") from refusal
            raise
        if hashlib.sha256(value).hexdigest() != sha256:
            raise Unavailable(f"the blob {sha256} is damaged in S3", code="damaged")
        return value

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        names = sorted(set(files.values()))
        contents = dict(zip(names, await together(self.get, names, _AT_ONCE), strict=True))
        await asyncio.to_thread(write_folder, [(path, contents[sha256]) for path, sha256 in files.items()], target)

    async def remove_leftovers(self) -> int:
        """Nothing: parts of uploads that were not finished go by the bucket's lifecycle."""
        return 0

    async def ping(self) -> None:
        await self.s3.call("list_objects_v2", Bucket=self.bucket, Prefix=BLOBS_PREFIX, MaxKeys=1)

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        now_s = server_time_s(await self.s3.call("list_objects_v2", Bucket=self.bucket, MaxKeys=1))
        unused: dict[str, list[Mapping[str, Any]]] = {}
        young: set[str] = set()
        async for version in self.listed(BLOBS_PREFIX):
            unused.setdefault(version["Key"], []).append(version)
            if version["IsLatest"] and version["LastModified"].timestamp() >= now_s - older_than_s:
                young.add(version["Key"])
        for key in young:
            del unused[key]
        async for sha256 in in_use():
            unused.pop(key_of(sha256), None)
        versions = [version for some in unused.values() for version in some]
        for start in range(0, len(versions), _DELETES_MAX):
            going = [
                {"Key": version["Key"], "VersionId": version["VersionId"]}
                for version in versions[start : start + _DELETES_MAX]
            ]
            answer = await self._send("delete_objects", None, Delete={"Objects": going, "Quiet": True})
            if answer.get("Errors"):
                raise Unavailable(f"a blob could not be removed: {answer['Errors'][0]['Code']}")
        # What somebody has put again meanwhile has a version that was not listed, and stays.
        stayed = {version["Key"] async for version in self.listed(BLOBS_PREFIX)} if versions else set()
        gone = [some for key, some in unused.items() if key not in stayed]
        return Swept(len(gone), sum(some[0]["Size"] for some in gone))

    async def has(self, sha256: str) -> bool:
        try:
            await self.touch(sha256)
        except Refusal as refusal:
            if refusal.code not in _MISSING:
                raise
            return False
        return True

    async def _put_or_touch(self, blob: tuple[str, bytes]) -> None:
        sha256, value = blob
        if await self.has(sha256):
            return
        if len(value) > PART_BYTES:
            await self._put_in_parts(key_of(sha256), value)
            return
        await self._send("put_object", value, Key=key_of(sha256), ChecksumSHA256=_base64(bytes.fromhex(sha256)))

    async def touch(self, sha256: str) -> None:
        """Makes it as young as one that is written now. Raises `Refusal` when it is not there."""
        await self._send(
            "copy_object",
            None,
            Key=key_of(sha256),
            CopySource={"Bucket": self.bucket, "Key": key_of(sha256)},
            MetadataDirective="REPLACE",  # without a change S3 refuses to copy an object onto itself
        )

    async def _put_in_parts(self, key: str, value: bytes) -> None:
        begun = await self._send("create_multipart_upload", None, Key=key, ChecksumAlgorithm="SHA256")
        upload = {"Key": key, "UploadId": begun["UploadId"]}
        try:
            parts = [value[start : start + PART_BYTES] for start in range(0, len(value), PART_BYTES)]
            sent = await together(partial(self._send_part, upload), list(enumerate(parts, start=1)), _AT_ONCE)
            await self._send("complete_multipart_upload", None, **upload, MultipartUpload={"Parts": sent})
        except BaseException:
            await self._send("abort_multipart_upload", None, **upload)
            raise

    async def _send_part(self, upload: Mapping[str, Any], part: tuple[int, bytes]) -> dict[str, Any]:
        number, value = part
        checksum = _base64(hashlib.sha256(value).digest())
        answer = await self._send("upload_part", value, **upload, PartNumber=number, ChecksumSHA256=checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    async def _send(self, operation: str, body: bytes | None, **parameters: Any) -> Mapping[str, Any]:
        if body is not None:
            parameters["Body"] = body
        return await self.s3.call(operation, timeout_s=OBJECT_TIMEOUT_S, Bucket=self.bucket, **parameters)

    async def listed(self, prefix: str) -> AsyncIterator[Mapping[str, Any]]:
        """Every version of every object below, as `ListObjectVersions` describes it: 1,000 a request."""
        following: dict[str, Any] = {}
        while True:
            page = await self._send("list_object_versions", None, Prefix=prefix, **following)
            for version in page.get("Versions", ()):
                yield version
            if not page.get("IsTruncated"):
                return
            following = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}


def key_of(sha256: str) -> str:
    return f"{BLOBS_PREFIX}{sha256[:2]}/{sha256}"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
