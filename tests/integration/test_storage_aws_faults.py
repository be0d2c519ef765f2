"""DynamoDB and S3 that throttle, fail, lose answers or are silent: a clear error, no half state, and recovery."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from services import metrics
from services.clock import monotonic_s
from services.failures import Unavailable
from services.models import Invocation
from services.ports import InvocationQuery
from services.storage.aws import CALL_TIMEOUT_S
from services.storage.blobs_s3 import S3Blobs
from services.storage.dynamodb import DynamoStore
from tests.support.aws import AwsServer, place_of
from tests.support.drafts import assert_chained, draft, invocation, sha256
from tests.support.faulty_aws import Fault, FaultyAws, faulty

pytestmark = pytest.mark.anyio

# The last calls of a publish that the loop below makes fail; more would only be the next publish's.
CALLS_MAX = 40


@pytest.fixture
async def proxy(aws: AwsServer) -> AsyncIterator[FaultyAws]:
    async with faulty(aws.port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: FaultyAws, aws_url: str) -> AsyncIterator[DynamoStore]:
    store = await DynamoStore.open(place_of(aws_url)._replace(dynamodb_endpoint=proxy.url))
    yield store
    await store.close()


@pytest.fixture
async def blobs(proxy: FaultyAws, aws_url: str) -> AsyncIterator[S3Blobs]:
    blobs = await S3Blobs.open(place_of(aws_url)._replace(s3_endpoint=proxy.url))
    yield blobs
    await blobs.close()


def counted(service: str, outcome: str) -> float:
    return float(metrics.aws_failures.labels(service, outcome)._value.get())


@pytest.mark.parametrize(("fault", "outcome"), [("throttle", "throttled"), ("error", "failed"), ("cut", "failed")])
async def test_a_dynamodb_in_trouble_is_unavailable_and_the_store_goes_on_after(
    store: DynamoStore, proxy: FaultyAws, fault: Fault, outcome: str
) -> None:
    await store.publish([draft(text="one")])
    before = counted("dynamodb", outcome)
    proxy.always(fault)
    for attempt in (
        store.publish([draft(text="two")]),
        store.tail(0, 10),
        store.snapshot(),
        store.acquire_lease("scan", "a", 60),
        store.record([invocation(1)]),
    ):
        with pytest.raises(Unavailable):
            await attempt
    assert counted("dynamodb", outcome) > before
    proxy.always("")

    (published,) = await store.publish([draft(text="two")])

    assert (published.version, published.seq) == (2, 2)
    assert await assert_chained(store) == 2
    # What is noted before the transaction was in trouble already, so it was never sent.
    assert await store.invocations(InvocationQuery(10)) == []


async def test_an_s3_that_refuses_or_fails_does_not_pass_for_one_that_answers(blobs: S3Blobs, proxy: FaultyAws) -> None:
    await blobs.ping()
    for fault in ("throttle", "error", "cut"):
        proxy.always(fault)
        with pytest.raises(Unavailable, match="S3 does not answer"):
            await blobs.ping()
    proxy.always("")
    blobs.bucket = "nowhere"
    with pytest.raises(Unavailable, match="NoSuchBucket"):
        await blobs.ping()


async def test_trouble_that_passes_is_not_seen_by_the_caller(store: DynamoStore, proxy: FaultyAws) -> None:
    for fault in ("throttle", "error", "cut", "lose"):
        for number in (1, 2, 3, 4):
            proxy.nth(number, fault, lasting=False)
            assert (await store.publish([draft(text=f"{fault} {number}")]))[0].changed
    proxy.always("")
    assert await assert_chained(store) == 16


async def test_a_publish_whose_answer_was_lost_is_committed_once(store: DynamoStore, proxy: FaultyAws) -> None:
    proxy.always("lose", "TransactWriteItems")
    (published,) = await store.publish([draft()])
    assert (published.version, published.seq, published.changed) == (1, 1, True)
    proxy.always("")
    assert await assert_chained(store) == 1


async def test_a_silent_dynamodb_is_given_up_in_bounded_time(store: DynamoStore, proxy: FaultyAws) -> None:
    proxy.always("silence")
    began_s = monotonic_s()
    with pytest.raises(Unavailable):
        await store.tail(0, 10)
    assert monotonic_s() - began_s < 2 * CALL_TIMEOUT_S
    proxy.always("")
    assert await store.tail(0, 10) == []


async def test_invocations_whose_commit_was_not_answered_are_counted_once(store: DynamoStore, proxy: FaultyAws) -> None:
    batch: list[Invocation] = [invocation(n) for n in range(6)]
    proxy.always("lose", "TransactWriteItems")
    with pytest.raises(Unavailable):
        await store.record(batch)
    proxy.always("")
    await store.record(batch)
    assert len(await store.invocations(InvocationQuery(100))) == 6


@pytest.mark.parametrize("lasting", [False, True])
async def test_whatever_call_fails_a_publish_is_whole_or_nothing(
    store: DynamoStore, blobs: S3Blobs, proxy: FaultyAws, lasting: bool
) -> None:
    """SQLite's way of testing: the n-th call fails, for every n, until the operation gets through."""
    versions = 0
    for number in range(1, CALLS_MAX):
        text = f"text {number}"
        proxy.nth(number, "error", lasting=lasting)
        proxy.asked.clear()
        try:
            await blobs.put_many({sha256(text): text.encode()})
            await store.publish([draft("alpha", text), draft("beta", text)])
        except Unavailable:
            assert lasting, "one failure is got over"
        else:
            versions += 1
        done = len(proxy.asked) < number
        proxy.always("")
        alpha, beta = await store.versions("main/alpha"), await store.versions("main/beta")
        assert len(alpha) == len(beta) == versions
        if versions:
            assert await blobs.get(alpha[0].manifest[0].sha256)
        if done:
            break
    else:
        pytest.fail("the publish never got through")
    assert await assert_chained(store) == 2 * versions


@pytest.mark.parametrize(("fault", "outcome"), [("throttle", "throttled"), ("error", "failed"), ("cut", "failed")])
async def test_an_s3_in_trouble_is_unavailable_and_the_store_goes_on_after(
    blobs: S3Blobs, proxy: FaultyAws, fault: Fault, outcome: str
) -> None:
    await blobs.put_many({sha256("one"): b"one"})
    before = counted("s3", outcome)
    proxy.always(fault)
    with pytest.raises(Unavailable):
        await blobs.put_many({sha256("two"): b"two"})
    with pytest.raises(Unavailable):
        await blobs.get(sha256("one"))
    assert counted("s3", outcome) > before
    proxy.always("")
    await blobs.put_many({sha256("two"): b"two"})
    assert [await blobs.get(sha256(text)) for text in ("one", "two")] == [b"one", b"two"]


async def test_a_large_blob_that_fails_midway_leaves_no_upload_behind(blobs: S3Blobs, proxy: FaultyAws) -> None:
    value = bytes(20_000_000)
    name = hashlib.sha256(value).hexdigest()
    puts = 0  # the first is the touch, the second a part

    def decide(operation: str) -> Fault:
        nonlocal puts
        puts += operation == "PUT"
        return "error" if operation == "PUT" and puts > 2 else ""

    proxy.decide = decide
    with pytest.raises(Unavailable):
        await blobs.put_many({name: value})
    proxy.always("")
    left = await blobs.s3.call("list_multipart_uploads", Bucket=blobs.bucket)
    assert "Uploads" not in left
    await blobs.put_many({name: value})
    assert await blobs.get(name) == value


async def test_publishes_of_a_replica_that_is_cut_off_wait_no_longer_than_their_time(
    store: DynamoStore, proxy: FaultyAws
) -> None:
    proxy.always("silence")
    outcomes = await asyncio.gather(*(store.publish([draft(text=str(n))]) for n in range(10)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    proxy.always("")
    assert (await store.head()).seq == 0
