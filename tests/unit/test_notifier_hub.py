import asyncio

import msgspec
import pytest

from notifier import Reset, SubscriptionEnded, UnknownTopic, Viewer
from notifier.close_codes import SHUTDOWN
from notifier.notifier import UnifiedNotifier
from notifier.subscription import Subscription
from tests.support.notifier_log import EVERYONE, STAMP, ListLog, announce, notifier_of, seqs

pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> ListLog:
    log = ListLog()
    for _ in range(3):
        log.append()
    return log


@pytest.fixture
def notifier(log: ListLog) -> UnifiedNotifier:
    return notifier_of(log)


async def batch(subscription: Subscription, max_events: int = 64) -> list[int]:
    async with asyncio.timeout(5):
        return seqs(await subscription.next_batch(max_events))


async def only_reset(subscription: Subscription) -> Reset:
    async with asyncio.timeout(5):
        frames = await subscription.next_batch()
    assert isinstance(frames[0], Reset)
    assert len(frames) == 1
    return frames[0]


async def test_fresh_subscriber_gets_what_comes_and_nothing_before(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    recovery = await subscription.start()
    announce(log, notifier, 2)

    assert recovery == (log.rows[2].id, False, 0)
    assert await batch(subscription) == [4, 5]
    assert notifier.position == log.rows[4].id


async def test_rows_committed_before_the_acknowledgement_are_not_missed(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    announce(log, notifier)
    await subscription.start()

    assert await batch(subscription) == [4]


async def test_resume_inside_the_ring_replays_exactly_what_was_missed(log: ListLog, notifier: UnifiedNotifier) -> None:
    announce(log, notifier, 5)
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[4].id)

    assert await subscription.start() == (log.rows[7].id, True, 3)
    assert await batch(subscription) == [6, 7, 8]
    assert log.reads == 0


async def test_resume_at_the_very_edge_of_the_ring_needs_no_store(log: ListLog, notifier: UnifiedNotifier) -> None:
    announce(log, notifier, 20)
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[-9].id)

    assert (await subscription.start()).replayed == 8
    assert await batch(subscription) == list(range(16, 24))
    assert log.reads == 0


async def test_replica_that_just_began_resumes_from_the_rows_it_was_given(log: ListLog) -> None:
    notifier = notifier_of(log)
    notifier.remember(log.rows[1:])
    since = log.rows[1].id
    announce(log, notifier)
    subscription = notifier.subscribe(EVERYONE, ["skills"], since)

    assert (await subscription.start()).replayed == 2
    assert await batch(subscription) == [3, 4]
    assert log.reads == 0


async def test_rows_that_do_not_end_where_the_log_stood_are_not_remembered(log: ListLog) -> None:
    notifier = notifier_of(log)
    notifier.remember(log.rows[:2])

    assert notifier.position == log.rows[2].id
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[0].id)
    assert (await subscription.start()).replayed == 2
    assert await batch(subscription) == [2, 3]


async def test_ring_is_bounded_by_bytes_too(log: ListLog) -> None:
    notifier = UnifiedNotifier(log, log.position, utc_now=lambda: STAMP, bytes_max=2000)
    early = notifier.subscribe(EVERYONE, ["skills"])
    announce(log, notifier, 20)

    received: list[int] = []
    while len(received) < 20:
        received += await batch(early)
    assert received == list(range(4, 24))
    assert log.reads > 0, "the oldest of 20 rows of some 170 bytes, kept twice, were not in the ring any more"


async def test_resume_older_than_the_ring_goes_through_the_store_without_a_seam(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    announce(log, notifier, 20)
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[0].id)

    assert await subscription.start() == (log.rows[22].id, True, 22)
    announce(log, notifier)
    received: list[int] = []
    while len(received) < 23:
        received += await batch(subscription, max_events=4)
    assert received == list(range(2, 25))


async def test_resume_from_the_very_beginning_of_the_log(notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"], "e1-0-00000000")

    assert (await subscription.start()).replayed == 3
    assert await batch(subscription) == [1, 2, 3]


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("rubbish", "unknown"),
        ("e0-2-0a1b2c3d", "epoch"),
        ("e1-3-0a1b2c3d", "tag"),
        ("e1-2-0a1b2c3d", "tag"),
        ("e1-99-0a1b2c3d", "ahead"),
    ],
)
async def test_position_that_is_not_ours_is_answered_with_a_reset(
    log: ListLog, notifier: UnifiedNotifier, since: str, reason: str
) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"], since)

    assert await subscription.start() == (log.rows[2].id, False, 0)
    reset = await only_reset(subscription)
    assert msgspec.json.decode(reset.json) == {
        "reason": reason,
        "position": log.rows[2].id,
        "snapshot": "/api/v1/skills",
    }
    announce(log, notifier)
    assert await batch(subscription) == [4]


async def test_position_that_the_log_no_longer_reaches_is_reset_as_trimmed(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    announce(log, notifier, 20)
    log.oldest_kept = 10
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[4].id)

    assert not (await subscription.start()).recovered
    assert (await only_reset(subscription)).reason == "trimmed"


async def test_position_just_before_the_oldest_kept_row_has_missed_nothing(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    announce(log, notifier, 20)
    log.oldest_kept = 10
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[8].id)

    assert (await subscription.start()).replayed == 14


async def test_client_of_a_faster_replica_goes_on_without_reset_or_repetition(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    late = [log.append() for _ in range(3)]
    subscription = notifier.subscribe(EVERYONE, ["skills"], late[1].id)
    assert await subscription.start() == (late[1].id, True, 0)
    notifier.apply(late)

    assert await batch(subscription) == [6]
    assert subscription.pending == 1
    subscription.close()
    assert notifier.ledger.owed == 1


async def test_slow_subscriber_catches_up_through_the_store(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    await subscription.start()
    announce(log, notifier, 30)

    received: list[int] = []
    while len(received) < 30:
        received += await batch(subscription, max_events=7)
    assert received == list(range(4, 34))


async def test_slow_subscriber_is_reset_when_the_store_cannot_help_and_the_loss_is_counted(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    await subscription.start()
    announce(log, notifier, 30)
    log.oldest_kept = 20

    reset = await only_reset(subscription)
    assert (reset.reason, reset.position) == ("slow", log.rows[-1].id)
    assert notifier.ledger.undelivered == {"slow": 30}
    announce(log, notifier)
    assert await batch(subscription) == [34]


async def test_rows_of_a_new_epoch_reset_everybody(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    await subscription.start()
    announce(log, notifier)
    restored = ListLog("e2")
    announce(restored, notifier, 2)

    async with asyncio.timeout(5):
        frames = await subscription.next_batch()
    assert isinstance(frames[0], Reset)
    assert (frames[0].reason, frames[0].position) == ("epoch", restored.rows[0].id)
    assert seqs(frames) == [2]


async def test_epoch_that_changes_while_a_position_is_checked_is_told_once(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    announce(log, notifier, 20)
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[0].id)
    log.gate.clear()
    starting = asyncio.create_task(subscription.start())
    async with asyncio.timeout(5):
        await log.reader_waits.wait()
    restored = ListLog("e2")
    announce(restored, notifier, 1)
    log.gate.set()

    async with asyncio.timeout(5):
        assert await starting == (restored.rows[0].id, False, 0)
    assert (await only_reset(subscription)).reason == "epoch"
    announce(restored, notifier, 1)
    assert await batch(subscription) == [2]


async def test_rows_that_were_applied_before_are_ignored(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    rows = announce(log, notifier, 2)
    notifier.apply(rows)

    assert await batch(subscription) == [4, 5]


async def test_rows_the_follower_skipped_are_read_from_the_store(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    announce(log, notifier)
    for _ in range(3):
        log.append()
    announce(log, notifier)

    received: list[int] = []
    while len(received) < 5:
        received += await batch(subscription)
    assert received == [4, 5, 6, 7, 8]
    subscription.close()
    assert notifier.ledger.owed == notifier.ledger.delivered + notifier.ledger.undelivered.total()


async def test_private_rows_stay_with_their_owner_live_and_replayed(log: ListLog, notifier: UnifiedNotifier) -> None:
    live = notifier.subscribe(Viewer(frozenset({"a"})), ["skills"])
    rows = [log.append(owner="a", visibility="private"), log.append(owner="b", visibility="private"), log.append()]
    notifier.apply(rows)
    resumed = notifier.subscribe(Viewer(frozenset({"b"})), ["skills"], log.rows[2].id)

    assert await batch(live) == [4, 6]
    assert (await resumed.start()).replayed == 2
    assert await batch(resumed) == [5, 6]


async def test_idle_subscriber_of_another_topic_keeps_a_fresh_position(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["tools"])
    await subscription.start()
    announce(log, notifier, 50)

    assert subscription.position == log.rows[-1].id


async def test_position_does_not_name_what_is_still_on_its_way(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    await subscription.start()
    announce(log, notifier, 3)
    await batch(subscription, max_events=2)
    assert subscription.position == log.rows[2].id

    await batch(subscription, max_events=2)
    assert subscription.position == log.rows[4].id


async def test_topic_that_joins_later_is_replayed_and_the_others_are_not_repeated(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[0].id)
    announce(log, notifier, 2, "tools")
    announce(log, notifier, 1, "skills")
    assert [await batch(subscription), await batch(subscription)] == [[2, 3], [6]]

    join = subscription.join(frozenset({"tools"}), log.rows[2].id)
    announce(log, notifier, 1, "skills")
    assert (await subscription.recover(join)).replayed == 2
    subscription.acknowledge(join)
    announce(log, notifier, 1, "tools")
    assert await batch(subscription) == [4, 5, 7, 8]


async def test_nothing_is_delivered_while_a_join_waits_for_its_acknowledgement(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills"])
    await subscription.start()
    announce(log, notifier, 20)
    log.gate.clear()
    reading = asyncio.create_task(batch(subscription, max_events=100))
    async with asyncio.timeout(5):
        await log.reader_waits.wait()
    join = subscription.join(frozenset({"tools"}), None)
    log.gate.set()
    reads = log.reads
    for _ in range(10):
        await asyncio.sleep(0)
    assert not reading.done()
    assert log.reads == reads

    subscription.acknowledge(join)
    assert await reading == list(range(4, 16))


async def test_left_topic_is_silent_and_what_it_was_owed_is_counted(log: ListLog, notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["skills", "tools"])
    announce(log, notifier, 2, "tools")
    announce(log, notifier, 1, "skills")
    subscription.leave(frozenset({"tools"}))

    assert await batch(subscription) == [6]
    assert notifier.ledger.undelivered == {"unsubscribed": 2}


async def test_states_come_as_a_snapshot_first_and_are_conflated_by_key(
    log: ListLog, notifier: UnifiedNotifier
) -> None:
    notifier.publish_state("stats", "cpu", "stats.updated", b"1")
    subscription = notifier.subscribe(EVERYONE, ["skills", "stats", "health"])
    announce(log, notifier)
    notifier.publish_state("cache", "l1", "cache.updated", b"0")
    for value in (b"2", b"3"):
        notifier.publish_state("health", "db", "health.updated", value)

    async with asyncio.timeout(5):
        frames = await subscription.next_batch()
    states = [msgspec.json.decode(frame.json) for frame in frames[:2]]
    assert [(state["topic"], state["key"], state["data"], state["snapshot"]) for state in states] == [
        ("stats", "cpu", 1, True),
        ("health", "db", 3, False),
    ]
    assert seqs(frames[2:]) == [4]
    assert notifier.ledger.undelivered == {"conflated": 1}


async def test_state_that_was_read_before_it_changed_is_not_counted_as_lost(notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(EVERYONE, ["stats"])
    for value in (b"1", b"2"):
        notifier.publish_state("stats", "cpu", "stats.updated", value)
        async with asyncio.timeout(5):
            assert len(await subscription.next_batch()) == 1
    subscription.close()

    assert notifier.ledger.owed == 2
    assert notifier.ledger.undelivered == {"closed": 1}
    assert notifier.ledger.delivered == 1


async def test_private_states_stay_with_their_owner(notifier: UnifiedNotifier) -> None:
    subscription = notifier.subscribe(Viewer(frozenset({"b"})), ["incidents"])
    notifier.publish_state("incidents", "step", "run.step", b"1", owner="a", visibility="private")
    notifier.publish_state("incidents", "step", "run.step", b"2", owner="b", visibility="private")

    async with asyncio.timeout(5):
        frames = await subscription.next_batch()
    assert [msgspec.json.decode(frame.json)["data"] for frame in frames] == [2]
    subscription.close()
    assert notifier.ledger.owed == notifier.ledger.delivered + notifier.ledger.undelivered.total()


async def test_state_of_a_log_topic_and_unknown_topics_are_refused(notifier: UnifiedNotifier) -> None:
    with pytest.raises(ValueError, match="not a state topic"):
        notifier.publish_state("skills", "x", "y", b"1")
    with pytest.raises(UnknownTopic):
        notifier.subscribe(EVERYONE, ["nope"])
    assert not notifier.presence


async def test_store_that_fails_fails_this_stream_only(log: ListLog, notifier: UnifiedNotifier) -> None:
    slow = notifier.subscribe(EVERYONE, ["skills"])
    await slow.start()
    announce(log, notifier, 20)
    quick = notifier.subscribe(EVERYONE, ["skills"])
    announce(log, notifier)
    log.failure = OSError("the database has gone")

    with pytest.raises(OSError, match="gone"):
        await batch(slow)
    assert await batch(quick) == [24]
    log.failure = None
    assert (await batch(slow))[0] == 4


async def test_close_ends_every_stream_and_those_that_come_later(log: ListLog, notifier: UnifiedNotifier) -> None:
    first = notifier.subscribe(EVERYONE, ["skills"], transport="sse")
    announce(log, notifier, 2)

    async def consume() -> None:
        try:
            while True:
                await first.next_batch()
        finally:
            first.close()

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0)
    assert notifier.presence == {"sse": 1}
    await notifier.close()
    with pytest.raises(SubscriptionEnded) as ended:
        await consumer
    assert ended.value.close == SHUTDOWN
    assert not notifier.presence
    with pytest.raises(SubscriptionEnded):
        await notifier.subscribe(EVERYONE, ["skills"]).next_batch()
