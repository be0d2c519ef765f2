import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from services.execution.packages import PackageFolders
from services.failures import NotFound, Unavailable
from services.ports import Swept
from services.skills.manifest import build_manifest, digest_of

pytestmark = pytest.mark.anyio

_FILES = {"SKILL.md": b"x", "scripts/a.py": b"y"}
_MANIFEST = build_manifest(_FILES)
_DIGEST = digest_of(_MANIFEST)


class RecordingBlobs:
    """A `BlobStore` whose writes wait for `go` and can be told to fail."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.targets: list[Path] = []
        self.failure: Exception | None = None

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        raise NotImplementedError

    async def has(self, sha256: str) -> bool:
        raise NotImplementedError

    async def get(self, sha256: str) -> bytes:
        raise NotImplementedError

    async def materialize(self, files: Mapping[str, str], target: Path) -> None:
        self.targets.append(target)
        self.entered.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        assert files == {entry.path: entry.sha256 for entry in _MANIFEST}
        await asyncio.to_thread(target.mkdir, parents=True)

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        raise NotImplementedError

    async def remove_leftovers(self) -> int:
        raise NotImplementedError

    async def ping(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def test_concurrent_callers_write_a_version_once(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    folders = PackageFolders(tmp_path / "packages", blobs)
    calls = [asyncio.create_task(folders.folder(_DIGEST, _MANIFEST)) for _ in range(10)]
    await asyncio.wait_for(blobs.entered.wait(), 5)
    blobs.go.set()
    assert set(await asyncio.gather(*calls)) == {tmp_path / "packages" / _DIGEST.removeprefix("sha256:")}
    assert len(blobs.targets) == 1


async def test_a_cancelled_writer_leaves_the_work_to_the_next(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    folders = PackageFolders(tmp_path, blobs)
    first = asyncio.create_task(folders.folder(_DIGEST, _MANIFEST))
    await asyncio.wait_for(blobs.entered.wait(), 5)
    second = asyncio.create_task(folders.folder(_DIGEST, _MANIFEST))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    blobs.go.set()
    assert (await asyncio.wait_for(second, 5)).is_dir()
    assert len(blobs.targets) == 2


async def test_a_folder_that_is_there_already_is_not_written(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    (tmp_path / _DIGEST.removeprefix("sha256:")).mkdir()
    assert (await PackageFolders(tmp_path, blobs).folder(_DIGEST, _MANIFEST)).is_dir()
    assert blobs.targets == []


async def test_losing_the_race_to_another_replica_is_no_failure(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    blobs.failure = OSError("the target exists")
    call = asyncio.create_task(PackageFolders(tmp_path, blobs).folder(_DIGEST, _MANIFEST))
    await asyncio.wait_for(blobs.entered.wait(), 5)
    blobs.targets[0].mkdir()
    blobs.go.set()
    assert (await asyncio.wait_for(call, 5)).is_dir()


def locks() -> int:
    gc.collect()
    return sum(isinstance(each, asyncio.Lock) for each in gc.get_objects())


async def test_nothing_is_kept_of_a_version_whether_it_was_written_or_not(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    blobs.go.set()
    folders = PackageFolders(tmp_path, blobs)
    before = locks()
    await folders.folder(_DIGEST, _MANIFEST)
    blobs.failure = NotFound("a blob is gone")
    for number in range(20):
        with pytest.raises(NotFound):
            await folders.folder(f"sha256:{number:064x}", _MANIFEST)
    blobs.failure = None  # its traceback names all the frames it went through
    assert locks() == before


async def test_a_failed_write_is_not_remembered(tmp_path: Path) -> None:
    blobs = RecordingBlobs()
    blobs.go.set()
    folders = PackageFolders(tmp_path, blobs)
    blobs.failure = OSError("no space left")
    with pytest.raises(Unavailable, match="no space left"):
        await folders.folder(_DIGEST, _MANIFEST)
    blobs.failure = NotFound("a blob is gone")
    with pytest.raises(NotFound):
        await folders.folder(_DIGEST, _MANIFEST)
    blobs.failure = None
    assert (await folders.folder(_DIGEST, _MANIFEST)).is_dir()
