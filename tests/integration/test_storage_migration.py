"""A catalog that is moved between the backends is the same on both, however often the move is interrupted."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from services.failures import Conflict, Unavailable
from services.models import Skill
from services.ports import BlobStore, InvocationQuery, MetadataStore
from services.storage.migration import Moved, Side, migrate
from tests.support.aws import AwsServer, place_of
from tests.support.drafts import assert_chained, draft, invocation, sha256, tool
from tests.support.stores import AnyBlobs, AnyStore, open_blobs, open_store

pytestmark = pytest.mark.anyio


class Failing:
    """A `BlobStore` whose disk is full after a number of calls."""

    def __init__(self, inner: BlobStore, calls: int) -> None:
        self._inner = inner
        self._left = calls

    async def put_many(self, blobs: Mapping[str, bytes]) -> None:
        self._left -= 1
        if self._left < 0:
            raise Unavailable("the disk is full")
        await self._inner.put_many(blobs)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.fixture
async def sides(tmp_path: Path, aws_url: str) -> AsyncIterator[tuple[Side, Side, Side]]:
    """A local one, one on S3 and DynamoDB, and another local one."""
    stores: list[AnyStore] = []
    blobs: list[AnyBlobs] = []
    found = []
    for name, url in (("a", f"sqlite:///{tmp_path}/a.db"), ("s3", aws_url), ("b", f"sqlite:///{tmp_path}/b.db")):
        stores.append(await open_store(url))
        blobs.append(await open_blobs(stores[-1], url, tmp_path / name))
        found.append(Side(stores[-1], blobs[-1]))
    first, second, third = found
    yield first, second, third
    for each in (*blobs, *stores):
        await each.close()


async def fill(side: Side) -> None:
    texts = [f"text {n}" for n in range(1, 13)]
    await side.blobs.put_many({sha256(text): text.encode() for text in [*texts, "one", "bad"]})
    for text in texts:
        await side.store.publish([draft("alpha", text, source_path="alpha", tools=[tool("run")])])
    await side.store.activate("main/alpha", 9, "ann")
    await side.store.publish([draft("beta", "one", visibility="private"), draft("bad", "bad", grade="quarantined")])
    await side.store.publish([draft("gone", "one")])
    await side.store.deactivate("main/gone", "ann")
    await side.store.record([invocation(n) for n in range(7)])


async def skills_of(store: MetadataStore) -> dict[str, tuple[str, int | None, int, str]]:
    def state(skill: Skill) -> tuple[str, int | None, int, str]:
        return (skill.status, skill.active.version if skill.active else None, skill.last_version, skill.visibility)

    return {skill.id: state(skill) for skill in (await store.snapshot()).skills}


async def move(source: Side, target: Side) -> Moved:
    said: list[str] = []
    moved = await migrate(source, target, said.append)
    assert said
    return moved


async def test_a_catalog_goes_to_s3_and_back_with_its_numbers_and_files(sides: tuple[Side, Side, Side]) -> None:
    first, second, third = sides
    await fill(first)

    assert await move(first, second) == await move(second, third) == Moved(4, 15, 7)

    assert await skills_of(first.store) == await skills_of(second.store) == await skills_of(third.store)
    assert (await skills_of(third.store))["main/alpha"] == ("active", 9, 12, "public")
    for side in (second, third):
        assert await side.store.versions("main/alpha") == await first.store.versions("main/alpha")
        assert await side.store.ledger("folder") == await first.store.ledger("folder")
        assert await side.store.invocations(InvocationQuery(100)) == await first.store.invocations(InvocationQuery(100))
        assert await side.blobs.get(sha256("text 3")) == b"text 3"
    (published,) = await third.store.publish([draft("alpha", "after it")])
    assert published.version == 13


async def test_a_migration_that_was_interrupted_goes_on_and_one_that_is_done_writes_nothing(
    sides: tuple[Side, Side, Side],
) -> None:
    first, second, _ = sides
    await fill(first)
    with pytest.raises(Unavailable):
        await move(first, Side(second.store, Failing(second.blobs, 2)))  # type: ignore[arg-type]  # its other calls are the inner's
    assert 0 < len(await skills_of(second.store)) < 4

    assert await move(first, second) == Moved(4, 15, 7)
    head = await second.store.head()
    assert await move(first, second) == Moved(4, 15, 7)
    assert await second.store.head() == head

    await first.store.publish([draft("beta", "two")])
    await first.blobs.put_many({sha256("two"): b"two"})
    assert (await move(first, second)).versions == 16, "what was published meanwhile follows"
    assert await assert_chained(second.store) > head.seq  # type: ignore[arg-type]  # opened above


async def test_a_target_with_another_catalog_is_refused_and_left_as_it_is(sides: tuple[Side, Side, Side]) -> None:
    first, second, third = sides
    await fill(first)
    await second.store.publish([draft("other", "one")])
    await third.store.publish([draft("alpha", "not the same")])
    for target in (second, third):
        head = await target.store.head()
        with pytest.raises(Conflict, match="another catalog"):
            await move(first, target)
        assert await target.store.head() == head


async def test_the_commands_prepare_and_fill_a_storage(tmp_path: Path, aws: AwsServer) -> None:
    place = place_of(f"aws+{aws.url}/test-{os.urandom(4).hex()}")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SKILLWIRE_")},
        "SKILLWIRE_DATA_DIR": str(tmp_path / "data"),
        "S3_SKILLS_BUCKET": place.bucket,
        "S3_ENDPOINT_URL": aws.url,
        "DYNAMODB_ENDPOINT_URL": aws.url,
        "DYNAMODB_SKILLS_TABLE": place.skills_table,
        "SKILLWIRE_DYNAMODB_INVOCATIONS_TABLE": place.invocations_table,
    }

    async def run(*command: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *command,
            env=environment, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    store = await open_store(f"sqlite:///{tmp_path}/data/skillwire.db")
    blobs = await open_blobs(store, "sqlite", tmp_path / "data")
    await fill(Side(store, blobs))
    await blobs.close()
    await store.close()

    refused, _, why = await run("migrate-storage", "--from", "local", "--to", "s3")
    assert (refused, "init-storage" in why) == (1, True), why
    made, out, _ = await run("init-storage")
    assert made == 0
    assert out.splitlines()[-1] == "the storage is ready"
    assert len(out.splitlines()) == 7
    again, out, _ = await run("init-storage")
    assert (again, out) == (0, "the storage is ready\n")
    moved, out, progress = await run("migrate-storage", "--from", "local", "--to", "s3")
    assert (moved, out) == (0, "4 skills with 15 versions are equal on both; 7 invocations\n"), progress
    assert "4/4 main/gone: 1 versions" in progress
