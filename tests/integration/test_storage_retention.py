"""What the hourly round removes, on a real store and real files, by a clock the test sets."""

import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from services import metrics
from services.execution.packages import PackageFolders
from services.failures import Unavailable
from services.models import Grade, Skill
from services.ports import InvocationQuery, Swept
from services.skills.view import CatalogView
from services.storage.blobs_local import LocalBlobs
from services.storage.retention import Kept, StorageRetention
from services.storage.runs import SqlRuns
from services.storage.sql import SqlStore
from tests.support.drafts import draft, invocation, sha256

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600
# The invocations of `drafts` ended on 2026-11-21 at 0:00, a second apart.
NOW = datetime(2026, 12, 21, 0, 0, 5, tzinfo=UTC)


class Parts:
    def __init__(self, store: SqlStore, folder: Path) -> None:
        self.store = store
        self.root = folder
        self.blobs = LocalBlobs(folder / "blobs")
        self.packages = PackageFolders(folder / "packages", self.blobs)

    async def retention(self, replica: str = "a") -> StorageRetention:
        view = CatalogView(await self.store.snapshot())
        kept = Kept(versions=3, invocation_days=30, unused_h=24)
        return StorageRetention(
            self.store, SqlRuns(self.store), self.blobs, view, self.packages, kept, replica=replica, now=lambda: NOW
        )

    async def publish(self, name: str, count: int, source: str = "folder:main", grade: Grade = "strict") -> Skill:
        for n in range(1, count + 1):
            text = f"{name} {n}"
            await self.blobs.put_many({sha256(text): text.encode()})
            await self.store.publish([msgspec.structs.replace(draft(name, text), source=source, grade=grade)])
        return {skill.name: skill for skill in (await self.store.snapshot()).skills}[name]

    async def numbers(self, name: str) -> list[int]:
        return [version.version for version in await self.store.versions(f"main/{name}")]

    def age_blobs(self) -> None:
        for path in (self.root / "blobs").glob("*/*"):
            os.utime(path, (1000, 1000))

    def blob_texts(self) -> list[str]:
        return sorted(path.read_text() for path in (self.root / "blobs").glob("*/*"))


@pytest.fixture
async def parts(database_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    parts = Parts(await SqlStore.open(database_url), tmp_path)
    yield parts
    await parts.blobs.close()
    await parts.store.close()


async def test_a_watched_skill_keeps_its_newest_versions_and_an_uploaded_one_all(parts: Parts) -> None:
    await parts.publish("watched", 6)
    await parts.publish("uploaded", 6, source="upload")
    await parts.store.pin("main/watched", 2, True, "ann")
    before = metrics.versions_pruned._value.get()

    await (await parts.retention()).look()

    assert await parts.numbers("watched") == [6, 5, 4, 2]
    assert await parts.numbers("uploaded") == [6, 5, 4, 3, 2, 1]
    assert metrics.versions_pruned._value.get() == before + 2


async def test_a_watched_skill_that_is_not_in_service_keeps_no_more(parts: Parts) -> None:
    await parts.publish("deleted", 6)
    await parts.store.deactivate("main/deleted", "ann")
    await parts.publish("broken", 6, grade="quarantined")
    await parts.publish("uploaded", 6, source="upload", grade="quarantined")

    await (await parts.retention()).look()

    assert await parts.numbers("deleted") == [6, 5, 4]
    assert await parts.numbers("broken") == [6, 5, 4]
    assert await parts.numbers("uploaded") == [6, 5, 4, 3, 2, 1]


async def test_blobs_of_pruned_versions_go_once_they_are_old(parts: Parts) -> None:
    await parts.publish("watched", 5)
    await (await parts.retention()).look()
    assert len(parts.blob_texts()) == 5, "they are young"

    parts.age_blobs()
    await (await parts.retention()).look()
    assert parts.blob_texts() == ["watched 3", "watched 4", "watched 5"]
    assert await parts.blobs.get(sha256("watched 3")) == b"watched 3"


async def test_a_publish_that_relies_on_an_old_unused_blob_while_the_sweep_runs_keeps_it(parts: Parts) -> None:
    """The order that loses data where the age is not looked at again: listed, names read, touched, committed."""
    await parts.publish("watched", 5)
    await parts.store.prune_versions("main/watched", 3)
    parts.age_blobs()

    async def in_use() -> AsyncIterator[str]:
        async for name in parts.store.blobs_in_use():
            yield name
        await parts.blobs.put_many({sha256("watched 1"): b"watched 1"})
        await parts.store.publish([draft("watched", "watched 1")])

    swept = await parts.blobs.sweep(in_use, DAY_S)

    assert swept.blobs == 1
    (version, *_) = await parts.store.versions("main/watched")
    assert [await parts.blobs.get(entry.sha256) for entry in version.manifest] == [b"watched 1"]


async def test_invocations_older_than_the_days_kept_go_and_stay_counted(parts: Parts) -> None:
    await parts.store.record([invocation(n) for n in range(10)])
    await (await parts.retention()).look()
    left = await parts.store.invocations(InvocationQuery(100))
    assert [call.id for call in left] == [f"inv-{n:04d}" for n in range(9, 4, -1)]
    assert [usage.calls for usage in await parts.store.usage("main/alpha")] == [10]


async def test_one_of_two_replicas_does_it(parts: Parts) -> None:
    await parts.publish("watched", 6)
    first, second = await parts.retention("a"), await parts.retention("b")
    await first.look()
    await parts.publish("more", 6)
    second = await parts.retention("b")
    await second.look()
    assert await parts.numbers("more") == [6, 5, 4, 3, 2, 1]
    await (await parts.retention("a")).look()
    assert await parts.numbers("more") == [6, 5, 4]


async def test_folders_that_nothing_ran_in_go_and_come_back_when_they_are_asked_for(parts: Parts) -> None:
    skill = await parts.publish("watched", 2)
    assert skill.active is not None
    old, used = await parts.store.versions("main/watched")
    for version in (old, used):
        await parts.packages.folder(version.digest, version.manifest)
    for folder in (parts.root / "packages").iterdir():
        os.utime(folder, (1000, 1000))
    (parts.root / "packages" / ".left-by-a-crash").mkdir()
    os.utime(parts.root / "packages" / ".left-by-a-crash", (1000, 1000))
    kept = await parts.packages.folder(used.digest, used.manifest)  # which is a use

    await (await parts.retention()).look()

    assert [*(parts.root / "packages").iterdir()] == [kept]
    again = await parts.packages.folder(old.digest, old.manifest)
    assert (again / "SKILL.md").read_text() == "watched 2"


class TroubledBlobs(LocalBlobs):
    """A disk that went away while it was swept."""

    async def sweep(self, in_use: Callable[[], AsyncIterator[str]], older_than_s: float) -> Swept:
        await super().sweep(in_use, older_than_s)
        raise Unavailable("the disk is away")


async def test_one_step_that_fails_is_counted_and_keeps_no_other_from_its_work(parts: Parts, tmp_path: Path) -> None:
    await parts.publish("watched", 6)
    await parts.store.record([invocation(0)])
    await parts.blobs.close()
    parts.blobs = TroubledBlobs(tmp_path / "blobs")
    before = metrics.retention_failures._value.get()
    await (await parts.retention()).look()
    assert metrics.retention_failures._value.get() == before + 1
    assert await parts.numbers("watched") == [6, 5, 4]
    assert await parts.store.invocations(InvocationQuery(10)) == []
