"""What every `BlobStore` must do, and what the one on a local disk does about that disk's trouble."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.failures import NotFound, Unavailable
from services.storage.blobs_local import LocalBlobs
from tests.support.chaos import small_disk

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600


def named(*values: bytes) -> dict[str, bytes]:
    return {hashlib.sha256(value).hexdigest(): value for value in values}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def blobs(root: Path) -> AsyncIterator[LocalBlobs]:
    blobs = LocalBlobs(root)
    yield blobs
    await blobs.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2048) as path:
        yield path


def files_of(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


async def test_what_was_put_is_read_back_also_by_the_next_store(blobs: LocalBlobs, root: Path) -> None:
    values = named(b"", *(b"%d" % n * 100 for n in range(60)))
    await blobs.put_many(values)
    await blobs.put_many({})
    await blobs.put_many(values)

    next_store = LocalBlobs(root)
    try:
        for sha256, value in values.items():
            assert await next_store.get(sha256) == value
    finally:
        await next_store.close()
    assert files_of(root) == set(values)


async def test_writers_of_the_same_blobs_at_once_all_succeed(blobs: LocalBlobs, root: Path) -> None:
    values = named(*(b"%d" % n for n in range(30)))
    await asyncio.gather(*(blobs.put_many(values) for _ in range(8)))
    assert files_of(root) == set(values)


async def test_every_file_and_the_folders_that_name_it_are_synced_before_the_answer(
    blobs: LocalBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the last of these a power cut takes the folder, and the blob of a committed version with it."""
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ((sha256, value),) = named(b"precious").items()
    await blobs.put_many({sha256: value})
    assert synced[0].name.startswith(sha256)
    assert synced[0].name.endswith(".tmp")
    assert set(synced[1:]) == {root / sha256[:2], root}

    synced.clear()
    await blobs.put_many({sha256: value})
    assert set(synced) == {root / sha256[:2], root}, "the writer that made it may not have come so far"


async def test_a_blob_that_exists_is_touched_so_that_age_counts_from_the_last_use(
    blobs: LocalBlobs, root: Path
) -> None:
    ((sha256, value),) = named(b"old").items()
    await blobs.put_many({sha256: value})
    path = root / sha256[:2] / sha256
    os.utime(path, (1000, 1000))
    inode = path.stat().st_ino

    await blobs.put_many({sha256: value})

    assert path.stat().st_mtime > 1000
    assert path.stat().st_ino == inode


async def test_a_flipped_byte_is_noticed_at_the_read(blobs: LocalBlobs, root: Path) -> None:
    ((sha256, value),) = named(b"precious").items()
    await blobs.put_many({sha256: value})
    (root / sha256[:2] / sha256).write_bytes(b"Precious")

    with pytest.raises(Unavailable) as damaged:
        await blobs.get(sha256)
    assert damaged.value.code == "damaged"


async def test_a_missing_blob_is_not_found(blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound):
        await blobs.get("0" * 64)


async def test_a_blob_the_disk_does_not_give_is_unavailable(blobs: LocalBlobs, root: Path) -> None:
    (root / "00" / ("0" * 64)).mkdir(parents=True)
    with pytest.raises(Unavailable):
        await blobs.get("0" * 64)


async def test_materialize_writes_a_read_only_folder(blobs: LocalBlobs, tmp_path: Path) -> None:
    values = named(b"one", b"two")
    await blobs.put_many(values)
    one, two = values
    target = tmp_path / "packages" / "target"

    await blobs.materialize({"SKILL.md": one, "scripts/deep/run.py": two}, target)
    await blobs.materialize({}, tmp_path / "packages" / "empty")

    assert (target / "SKILL.md").read_bytes() == b"one"
    assert (target / "scripts/deep/run.py").read_bytes() == b"two"
    assert (target / "SKILL.md").stat().st_mode & 0o222 == 0
    assert sorted(path.name for path in target.parent.iterdir()) == ["empty", "target"]


async def test_a_materialize_that_fails_midway_leaves_nothing(blobs: LocalBlobs, root: Path, tmp_path: Path) -> None:
    values = named(b"one", b"two")
    await blobs.put_many(values)
    one, two = values
    packages = tmp_path / "packages"

    with pytest.raises(NotFound):
        await blobs.materialize({"a": one, "b": "0" * 64}, packages / "target")
    (root / two[:2] / two).write_bytes(b"damaged")
    with pytest.raises(Unavailable):
        await blobs.materialize({"a": one, "b": two}, packages / "target")

    assert list(packages.iterdir()) == []


async def test_of_two_that_materialize_one_target_the_first_folder_stays_whole(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    values = named(b"one")
    await blobs.put_many(values)
    target = tmp_path / "packages" / "target"

    outcomes = await asyncio.gather(
        *(blobs.materialize({"a": next(iter(values))}, target) for _ in range(6)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes if outcome is not None] == [OSError] * 5
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert (target / "a").read_bytes() == b"one"


async def test_leftovers_of_crashed_writers_go_once_they_are_a_day_old(blobs: LocalBlobs, root: Path) -> None:
    values = named(b"kept")
    await blobs.put_many(values)
    sha256 = next(iter(values))
    folder = root / sha256[:2]
    now_s = (folder / sha256).stat().st_mtime
    for name, age_s in (("old.tmp", DAY_S + 60), ("young.tmp", DAY_S - 60), (sha256, 10 * DAY_S)):
        (folder / name).touch()
        os.utime(folder / name, (now_s - age_s, now_s - age_s))

    assert await blobs.remove_leftovers() == 1
    assert files_of(root) == {"young.tmp", sha256}


async def test_a_leftover_that_goes_while_leftovers_are_counted_is_no_error(blobs: LocalBlobs, root: Path) -> None:
    """A writer of another replica renames its temporary file between the listing and the look at it."""
    (root / "ab").mkdir()
    (root / "ab" / "gone.tmp").symlink_to(root / "nowhere")
    assert await blobs.remove_leftovers() == 0


async def test_a_full_disk_is_unavailable_leaves_no_temporary_file_and_works_again(disk: Path) -> None:
    blobs = LocalBlobs(disk / "blobs")
    small, big = named(b"small"), named(*(bytes([n]) * 300_000 for n in range(12)))
    try:
        await blobs.put_many(small)
        with pytest.raises(Unavailable, match="No space left"):
            await blobs.put_many(big)
        assert not [name for name in files_of(disk) if name.endswith(".tmp")]
        assert await blobs.get(next(iter(small))) == b"small"
        for sha256 in files_of(disk) - set(small):
            assert await blobs.get(sha256) == big[sha256], "what is there is whole"

        shutil.rmtree(disk / "blobs")
        (disk / "blobs").mkdir()
        one = dict(list(big.items())[:1])
        await blobs.put_many(one)
        assert [await blobs.get(sha256) for sha256 in one] == list(one.values())
    finally:
        await blobs.close()
