"""A package in parts: each is a blob under its own name, and nothing else is kept of an upload.

That makes it stateless and resumable. Whoever lost the connection asks which parts are there, on
any replica, and sends the others; a part that nobody joins is swept like any blob without a
version.
"""

import hashlib
import re
from collections.abc import Sequence

from services.failures import Invalid, NotFound, TooLarge
from services.ports import BlobStore

PART_BYTES_MAX = 8 * 1024 * 1024
PARTS_MAX = 512
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """Parts in the blob store; what they join to is at most `bytes_max`."""

    def __init__(self, blobs: BlobStore, bytes_max: int) -> None:
        self._blobs = blobs
        self._bytes_max = bytes_max

    async def has(self, sha256: str) -> bool:
        return _SHA256.fullmatch(sha256) is not None and await self._blobs.has(sha256)

    async def put(self, sha256: str, part: bytes) -> None:
        """Stores a part, durable on return; a second time changes nothing. Raises `Invalid` for one that
        is not what its name says."""
        if not part:
            raise Invalid("a part may not be empty")
        if len(part) > PART_BYTES_MAX:
            raise TooLarge(f"a part is at most {PART_BYTES_MAX} bytes")
        if hashlib.sha256(part).hexdigest() != sha256:
            raise Invalid("the SHA-256 of these bytes is not the part's name", code="part_mismatch")
        await self._blobs.put_many({sha256: part})

    async def join(self, parts: Sequence[str]) -> bytes:
        """The upload's bytes. Raises `NotFound` (`part_missing`) that names every part that is not there."""
        missing = [part for part in dict.fromkeys(parts) if not await self._blobs.has(part)]
        if missing:
            raise NotFound(
                f"{len(missing)} of {len(parts)} parts are not there; send them first", code="part_missing", parts=missing
            )
        joined = bytearray()
        for part in parts:
            joined += await self._blobs.get(part)
            if len(joined) > self._bytes_max:
                raise TooLarge(f"the upload is over {self._bytes_max} bytes")
        return bytes(joined)
