"""What every `BlobStore` must do, and what the one on a local disk does about that disk's trouble."""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import select, update

from services.failures import Full, NotFound, Unavailable
from services.ports import Swept
from services.storage import schema
from services.storage.blobs_local import LocalBlobs
from services.storage.blobs_s3 import S3Blobs, key_of
from services.storage.blobs_table import TableBlobs
from services.storage.sql import SqlStore
from tests.support.aws import AwsServer, place_of
from tests.support.chaos import small_disk

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600


def named(*values: bytes) -> dict[str, bytes]:
    return {hashlib.sha256(value).hexdigest(): value for value in values}


Store = LocalBlobs | TableBlobs | S3Blobs


class Keeper(Protocol):
    """Opens one kind of store again and again, and reaches behind its back."""

    async def open(self) -> Store: ...

    async def names(self) -> set[str]: ...

    async def touched_at(self, sha256: str) -> float: ...

    async def set_touched_at(self, sha256: str, at: float) -> None: ...

    async def overwrite(self, sha256: str, value: bytes) -> None: ...

    async def close(self) -> None: ...


class FilesKeeper:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._opened: list[LocalBlobs] = []

    async def open(self) -> Store:
        self._opened.append(LocalBlobs(self._root))
        return self._opened[-1]

    async def names(self) -> set[str]:
        return files_of(self._root)

    async def touched_at(self, sha256: str) -> float:
        return self._path(sha256).stat().st_mtime

    async def set_touched_at(self, sha256: str, at: float) -> None:
        os.utime(self._path(sha256), (at, at))

    async def overwrite(self, sha256: str, value: bytes) -> None:
        self._path(sha256).write_bytes(value)

    async def close(self) -> None:
        for blobs in self._opened:
            await blobs.close()

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256


class RowsKeeper:
    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: list[SqlStore] = []

    async def open(self) -> Store:
        self._opened.append(await SqlStore.open(self._url))
        return TableBlobs(self._opened[-1])

    async def names(self) -> set[str]:
        async with self._opened[0].reading() as connection:
            return set(await connection.scalars(select(schema.blobs.c.sha256)))

    async def touched_at(self, sha256: str) -> float:
        async with self._opened[0].reading() as connection:
            query = select(schema.blobs.c.touched_at).where(schema.blobs.c.sha256 == sha256)
            return float((await connection.execute(query)).scalar_one())

    async def set_touched_at(self, sha256: str, at: float) -> None:
        await self._change(sha256, touched_at=at)

    async def overwrite(self, sha256: str, value: bytes) -> None:
        await self._change(sha256, body=value)

    async def close(self) -> None:
        for store in self._opened:
            await store.close()

    async def _change(self, sha256: str, **values: object) -> None:
        async with self._opened[0].writing() as connection:
            await connection.execute(update(schema.blobs).where(schema.blobs.c.sha256 == sha256).values(**values))


class ObjectsKeeper:
    def __init__(self, server: AwsServer, url: str) -> None:
        self._server = server
        self._place = place_of(url)
        self._opened: list[S3Blobs] = []

    async def open(self) -> Store:
        self._opened.append(await S3Blobs.open(self._place))
        return self._opened[-1]

    async def names(self) -> set[str]:
        found = [version async for version in self._opened[0].listed("")]
        return {version["Key"].rpartition("/")[2] for version in found if version["IsLatest"]}

    async def touched_at(self, sha256: str) -> float:
        answer = await self._opened[0].s3.call("head_object", Bucket=self._place.bucket, Key=key_of(sha256))
        return float(answer["LastModified"].timestamp())

    async def set_touched_at(self, sha256: str, at: float) -> None:
        await asyncio.to_thread(self._server.backdate, self._place.bucket, key_of(sha256), at)

    async def overwrite(self, sha256: str, value: bytes) -> None:
        await self._opened[0].s3.call("put_object", Bucket=self._place.bucket, Key=key_of(sha256), Body=value)

    async def close(self) -> None:
        for blobs in self._opened:
            await blobs.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture(params=["files", "sqlite", "postgres", "s3"])
async def keeper(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper: Keeper
    if request.param == "files":
        keeper = FilesKeeper(root)
    elif request.param == "sqlite":
        keeper = RowsKeeper(f"sqlite:///{tmp_path}/store.db")
    elif request.param == "s3":
        keeper = ObjectsKeeper(request.getfixturevalue("aws"), request.getfixturevalue("aws_url"))
    else:
        keeper = RowsKeeper(request.getfixturevalue("postgres_url"))
    yield keeper
    await keeper.close()


@pytest.fixture
async def blobs(keeper: Keeper) -> Store:
    return await keeper.open()


@pytest.fixture
async def files(root: Path) -> AsyncIterator[LocalBlobs]:
    files = LocalBlobs(root)
    yield files
    await files.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 2048) as path:
        yield path


def files_of(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


async def test_what_was_put_is_read_back_also_by_the_next_store(blobs: Store, keeper: Keeper) -> None:
    values = named(b"", *(b"%d" % n * 100 for n in range(60)))
    await blobs.put_many(values)
    await blobs.put_many({})
    await blobs.put_many(values)

    next_store = await keeper.open()
    for sha256, value in values.items():
        assert await next_store.get(sha256) == value
    assert await keeper.names() == set(values)


async def test_a_store_that_is_there_says_so_full_or_empty(blobs: Store) -> None:
    await blobs.ping()
    await blobs.put_many(named(b"one"))
    await blobs.ping()


async def test_a_folder_that_is_gone_is_said_to_be(files: LocalBlobs, root: Path) -> None:
    shutil.rmtree(root)
    with pytest.raises(Unavailable, match="No such file"):
        await files.ping()


async def test_blobs_of_any_size_are_kept(blobs: Store, keeper: Keeper) -> None:
    values = named(*(bytes([n]) * 1_500_000 for n in range(4)), b"x" * 9_000_000, *(b"%d" % n for n in range(300)))
    await blobs.put_many(values)
    assert await keeper.names() == set(values)
    assert [await blobs.get(sha256) for sha256 in values] == list(values.values())


async def test_writers_of_the_same_blobs_at_once_all_succeed(blobs: Store, keeper: Keeper) -> None:
    values = named(*(b"%d" % n for n in range(30)))
    await asyncio.gather(*(blobs.put_many(values) for _ in range(8)))
    assert await keeper.names() == set(values)


async def test_a_blob_that_exists_is_touched_so_that_age_counts_from_the_last_use(blobs: Store, keeper: Keeper) -> None:
    ((sha256, value),) = named(b"old").items()
    await blobs.put_many({sha256: value})
    await keeper.set_touched_at(sha256, 1000)

    await blobs.put_many({sha256: value} | named(b"new"))

    assert await keeper.touched_at(sha256) == pytest.approx(time.time(), abs=60)  # noqa: TID251  # as files have it


async def test_whether_a_blob_is_there_is_answered_and_counts_as_a_use(blobs: Store, keeper: Keeper) -> None:
    [(name, value)] = named(b"a part").items()
    assert not await blobs.has(name)
    await blobs.put_many({name: value})
    await keeper.set_touched_at(name, time.time_ns() / 1e9 - 2 * DAY_S)
    assert await blobs.has(name)
    assert time.time_ns() / 1e9 - await keeper.touched_at(name) < DAY_S


async def test_a_flipped_byte_is_noticed_at_the_read(blobs: Store, keeper: Keeper) -> None:
    ((sha256, value),) = named(b"precious").items()
    await blobs.put_many({sha256: value})
    await keeper.overwrite(sha256, b"Precious")

    with pytest.raises(Unavailable) as damaged:
        await blobs.get(sha256)
    assert damaged.value.code == "damaged"


async def nothing() -> AsyncIterator[str]:
    for name in list[str]():
        yield name


async def test_a_sweep_takes_old_blobs_that_no_version_names(blobs: Store, keeper: Keeper) -> None:
    values = named(*(b"%03d" % n for n in range(300)), b"used", b"young")
    await blobs.put_many(values)
    *old, used, young = values
    for sha256 in (*old, used):
        await keeper.set_touched_at(sha256, time.time() - DAY_S - 60)  # noqa: TID251  # as files have it
    await keeper.set_touched_at(young, time.time() - DAY_S + 60)  # noqa: TID251  # the same

    async def in_use() -> AsyncIterator[str]:
        for name in (used, used, "0" * 64):
            yield name

    assert await blobs.sweep(in_use, DAY_S) == Swept(300, 900)
    assert await keeper.names() == {used, young}
    assert await blobs.sweep(in_use, DAY_S) == Swept(0, 0)
    assert await blobs.get(used) == b"used"
    await blobs.put_many({old[0]: values[old[0]]})
    assert await blobs.get(old[0]) == values[old[0]], "what was swept can be put again"


async def test_a_blob_that_is_put_while_the_sweep_runs_stays(blobs: Store, keeper: Keeper) -> None:
    """A publish finds an old blob that nobody uses any more, and relies on it, after the sweep has listed it."""
    values = named(b"again", b"gone")
    await blobs.put_many(values)
    again, gone = values
    for sha256 in values:
        await keeper.set_touched_at(sha256, 1000)
    other = await keeper.open()

    async def in_use() -> AsyncIterator[str]:
        assert await keeper.names() == {again, gone}
        await other.put_many({again: b"again"})
        async for name in nothing():
            yield name

    assert await blobs.sweep(in_use, DAY_S) == Swept(1, 4)
    assert await keeper.names() == {again}
    assert await other.get(again) == b"again"


async def test_what_was_put_is_there_whatever_sweeps_run_beside_it(blobs: Store, keeper: Keeper) -> None:
    values = named(*(b"%d" % n for n in range(40)))
    other = await keeper.open()
    for _ in range(8):
        await blobs.put_many(values)
        for sha256 in values:
            await keeper.set_touched_at(sha256, 1000)
        some = dict(list(values.items())[::2])
        await asyncio.gather(blobs.sweep(nothing, DAY_S), other.put_many(some), other.sweep(nothing, DAY_S))
        for sha256, value in some.items():
            assert await other.get(sha256) == value


async def test_a_missing_blob_is_not_found(blobs: Store) -> None:
    with pytest.raises(NotFound):
        await blobs.get("0" * 64)


async def test_materialize_writes_a_read_only_folder(blobs: Store, tmp_path: Path) -> None:
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


async def test_a_materialize_that_fails_midway_leaves_nothing(blobs: Store, keeper: Keeper, tmp_path: Path) -> None:
    values = named(b"one", b"two")
    await blobs.put_many(values)
    one, two = values
    packages = tmp_path / "packages"
    packages.mkdir()

    with pytest.raises(NotFound):
        await blobs.materialize({"a": one, "b": "0" * 64}, packages / "target")
    await keeper.overwrite(two, b"damaged")
    with pytest.raises(Unavailable):
        await blobs.materialize({"a": one, "b": two}, packages / "target")

    assert list(packages.iterdir()) == []


async def test_of_two_that_materialize_one_target_the_first_folder_stays_whole(blobs: Store, tmp_path: Path) -> None:
    values = named(b"one")
    await blobs.put_many(values)
    target = tmp_path / "packages" / "target"

    outcomes = await asyncio.gather(
        *(blobs.materialize({"a": next(iter(values))}, target) for _ in range(6)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes if outcome is not None] == [OSError] * 5
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert (target / "a").read_bytes() == b"one"


async def test_every_file_and_the_folders_that_name_it_are_synced_before_the_answer(
    files: LocalBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the last of these a power cut takes the folder, and the blob of a committed version with it."""
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ((sha256, value),) = named(b"precious").items()
    await files.put_many({sha256: value})
    assert synced[0].name.startswith(sha256)
    assert synced[0].name.endswith(".tmp")
    assert set(synced[1:]) == {root / sha256[:2], root}

    synced.clear()
    await files.put_many({sha256: value})
    assert set(synced) == {root / sha256[:2], root}, "the writer that made it may not have come so far"


async def test_a_file_that_exists_is_not_written_again(files: LocalBlobs, root: Path) -> None:
    ((sha256, value),) = named(b"old").items()
    await files.put_many({sha256: value})
    inode = (root / sha256[:2] / sha256).stat().st_ino
    await files.put_many({sha256: value})
    assert (root / sha256[:2] / sha256).stat().st_ino == inode


async def test_a_blob_the_disk_does_not_give_is_unavailable(files: LocalBlobs, root: Path) -> None:
    (root / "00" / ("0" * 64)).mkdir(parents=True)
    with pytest.raises(Unavailable):
        await files.get("0" * 64)


async def test_leftovers_of_crashed_writers_go_once_they_are_a_day_old(files: LocalBlobs, root: Path) -> None:
    values = named(b"kept")
    await files.put_many(values)
    sha256 = next(iter(values))
    folder = root / sha256[:2]
    now_s = (folder / sha256).stat().st_mtime
    for name, age_s in (("old.tmp", DAY_S + 60), ("young.tmp", DAY_S - 60), (sha256, 10 * DAY_S)):
        (folder / name).touch()
        os.utime(folder / name, (now_s - age_s, now_s - age_s))

    assert await files.remove_leftovers() == 1
    assert files_of(root) == {"young.tmp", sha256}


async def test_a_leftover_that_goes_while_leftovers_are_counted_is_no_error(files: LocalBlobs, root: Path) -> None:
    """A writer of another replica renames its temporary file between the listing and the look at it."""
    (root / "ab").mkdir()
    (root / "ab" / "gone.tmp").symlink_to(root / "nowhere")
    assert await files.remove_leftovers() == 0


async def test_a_full_disk_is_unavailable_leaves_no_temporary_file_and_works_again(disk: Path) -> None:
    blobs = LocalBlobs(disk / "blobs")
    small, big = named(b"small"), named(*(bytes([n]) * 300_000 for n in range(12)))
    try:
        await blobs.put_many(small)
        with pytest.raises(Full):
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
