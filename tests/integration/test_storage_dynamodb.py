"""What DynamoDB and S3 bound: the size of an item and of a transaction, and a thousand objects in a list."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from services.failures import NotFound, TooLarge
from services.models import Draft
from services.storage.aws import together
from services.storage.blobs_s3 import S3Blobs, key_of
from services.storage.dynamodb import DynamoStore
from services.storage.dynamodb_items import to_item, to_row
from services.storage.dynamodb_tables import STATUS_INDEX
from services.storage.readable_s3 import ReadableCopies
from tests.support.aws import place_of
from tests.support.drafts import assert_chained, draft, invocation, sha256

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(aws_url: str) -> AsyncIterator[DynamoStore]:
    store = await DynamoStore.open(place_of(aws_url))
    yield store
    await store.close()


@pytest.fixture
async def blobs(aws_url: str) -> AsyncIterator[S3Blobs]:
    blobs = await S3Blobs.open(place_of(aws_url))
    yield blobs
    await blobs.close()


def large(text: str, size: int) -> Draft:
    """A draft whose frontmatter does not compress."""
    noise = random.Random(text).randbytes(size // 2).hex()
    return msgspec.structs.replace(draft(text=text), frontmatter={"name": "alpha", "noise": noise})


async def test_whoever_looks_into_the_tables_finds_the_attributes_that_are_documented(store: DynamoStore) -> None:
    tagged = msgspec.structs.replace(draft(text="two"), frontmatter={"name": "alpha", "tags": ["a", 7]})
    await store.publish([draft(text="one"), draft("waiting", activate=False)])
    await store.publish([tagged])
    await store.record([invocation(1), invocation(2)])
    reads = store.reads

    key = to_item({"skill_id": "main/alpha"})
    skill = to_row((await reads.dynamodb.call("get_item", TableName=reads.tables.skills, Key=key))["Item"])
    first, second = (change.at for change in await store.tail(0, 10) if change.dep == "skill:main/alpha")
    shown = {
        "skill_id": "main/alpha",
        "name": "alpha",
        "description": "alpha as of two",
        "version": "v2",
        "status": "active",
        "s3_key": "skills/main/alpha/v2/",
        "author": "test",
        "tags": ["a", "7"],
        "invocation_count": 2,
        "last_invoked_at": invocation(2).at,
        "created_at": first,
        "updated_at": second,
    }
    assert {name: skill[name] for name in shown} == shown
    assert json.loads(skill["manifest_json"]) == [{"path": "SKILL.md", "sha256": sha256("two"), "size": 3}]

    by_status = reads.query(
        reads.tables.skills,
        "#status = :status",
        {":status": "draft"},
        IndexName=STATUS_INDEX,
        ExpressionAttributeNames={"#status": "status"},
    )
    assert [item["skill_id"]["S"] async for item in by_status] == ["main/waiting"]

    calls = [
        to_row(item) async for item in reads.query(reads.tables.invocations, "skill_id = :id", {":id": "main/alpha"})
    ]
    assert [call["status"] for call in calls] == ["error", "success"]
    failed = calls[0]
    assert failed["invoked_at"] == f"{invocation(1).at}#inv-0001"
    logged = ("session_id", "method", "duration_ms", "error_message", "request_params")
    assert [failed[name] for name in logged] == ["s", "tools/call", 1.5, "timeout", "{}"]
    days = (failed["expires_at"] - time.time_ns() / 1e9) / 86400
    assert 29.9 < days <= 30


async def test_a_version_larger_than_an_item_is_kept_read_trimmed_and_removed_whole(store: DynamoStore) -> None:
    await store.publish([large("one", 2_000_000)])
    await store.publish([draft(text="two")])

    assert (await store.version("main/alpha", 1)).frontmatter == large("one", 2_000_000).frontmatter
    row, _ = await store.tail(0, 10)
    assert row.skill is not None
    assert row.skill.active == await store.version("main/alpha", 1)
    assert await assert_chained(store) == 2
    used = {name async for name in store.blobs_in_use()}
    assert used == {sha256("one"), sha256("two")}

    assert await store.prune_versions("main/alpha", 1) == 1
    with pytest.raises(NotFound):
        await store.version("main/alpha", 1)
    assert await store.trim(1, 100, sealed=99) == 2
    for table in (store.reads.tables.versions, store.reads.tables.changes):
        answer = await store.reads.dynamodb.call("scan", TableName=table, Select="COUNT")
        assert answer["Count"] <= 2, "no part is left behind"


async def test_what_is_larger_than_a_transaction_is_refused_and_the_next_write_goes_through(store: DynamoStore) -> None:
    for drafts in ([large("one", 6_000_000)], [draft(f"skill-{n}") for n in range(40)]):
        with pytest.raises(TooLarge):
            await store.publish(drafts)
    assert (await store.head()).seq == 0
    outcomes = await asyncio.gather(
        store.publish([draft(text="two")]), store.publish([large("three", 6_000_000)]), return_exceptions=True
    )
    assert isinstance(outcomes[1], TooLarge)
    assert (await store.version("main/alpha", 1)).digest == f"sha256:{sha256('two')}"


async def test_more_objects_than_a_list_holds_are_all_seen_and_swept(blobs: S3Blobs) -> None:
    names = [sha256(str(n)) for n in range(1003)]

    async def put(name: str) -> None:
        await blobs.s3.call("put_object", timeout_s=30, Bucket=blobs.bucket, Key=key_of(name), Body=b"x")

    await together(put, names, 16)
    assert len([version async for version in blobs.listed("blobs/")]) == 1003

    async def in_use() -> AsyncIterator[str]:
        yield names[7]

    assert (await blobs.sweep(in_use, -10)).blobs == 1002
    assert [version["Key"] async for version in blobs.listed("blobs/")] == [key_of(names[7])]


async def test_readable_copies_follow_the_log_and_are_made_anew_by_the_next_writer(
    store: DynamoStore, blobs: S3Blobs, aws_url: str
) -> None:
    async def keys() -> set[str]:
        return {version["Key"] async for version in blobs.listed("skills/") if version["IsLatest"]}

    async def settled(copies: ReadableCopies, expected: set[str]) -> None:
        copies.start()
        try:
            async with asyncio.timeout(15):
                while await keys() != expected:  # noqa: ASYNC110  # the event is S3's
                    await asyncio.sleep(0.05)
        finally:
            await copies.close()

    place = place_of(aws_url)
    await blobs.put_many({sha256(text): text.encode() for text in ("one", "two")})
    await store.publish([draft("alpha", "one"), draft("beta", "one")])
    folder = "skills/main/alpha"
    first = {f"skills/main/{name}/{path}" for name in ("alpha", "beta") for path in ("latest.json", "v1/SKILL.md")}
    await settled(ReadableCopies(blobs, store, place.skills_prefix, "a"), first)
    await store.release_lease("readable copies", "a")

    copies = ReadableCopies(blobs, store, place.skills_prefix, "b")
    await store.publish([draft("alpha", "two")])
    await store.remove("main/beta", "ann")
    copies.apply(await store.tail(0, 100))
    await settled(copies, {f"{folder}/latest.json", f"{folder}/v1/SKILL.md", f"{folder}/v2/SKILL.md"})
    latest = json.loads(await blobs.s3.read(5, Bucket=blobs.bucket, Key=f"{folder}/latest.json"))
    assert (latest["version"], latest["digest"]) == ("v2", f"sha256:{sha256('two')}")
