"""What replicas make of each other's states, without a link between them: the test carries the messages."""

import asyncio

import msgspec
import pytest
from msgspec import Raw

from notifier import Frame, State, Viewer
from notifier.events import Coverage
from notifier.fleet import Fleet
from notifier.notifier import UnifiedNotifier
from notifier.subscription import Subscription
from tests.support.notifier_log import EVERYONE, ListLog, notifier_of

pytestmark = pytest.mark.anyio


def replica(name: str) -> UnifiedNotifier:
    return notifier_of(ListLog(), replica=name)


def pair() -> tuple[UnifiedNotifier, UnifiedNotifier]:
    """Two that hear each other, and have said what there was to say."""
    both = replica("a"), replica("b")
    for each in both:
        each.fleet.link_up()
    carry(*both)
    return both


def carry(*replicas: UnifiedNotifier) -> list[bytes]:
    """Every message to everybody, its sender included, until nobody has anything to say."""
    carried = []
    while any(each.fleet.news.is_set() for each in replicas):
        for sender in replicas:
            if sender.fleet.news.is_set():
                for message in sender.fleet.messages():
                    carried.append(message)
                    for receiver in replicas:
                        receiver.fleet.take(message)
    return carried


def close(*replicas: UnifiedNotifier) -> None:
    for each in replicas:
        each.fleet.close()


async def states(subscription: Subscription) -> list[dict[str, object]]:
    async with asyncio.timeout(5):
        return [decoded(frame) for frame in await subscription.next_batch()]


def decoded(frame: Frame) -> dict[str, object]:
    return msgspec.json.decode(frame.json, type=dict[str, object])


async def test_state_of_one_replica_is_an_update_at_the_other_and_a_snapshot_for_who_comes_later() -> None:
    a, b = pair()
    early = b.subscribe(EVERYONE, ["stats"])
    a.publish_state("stats", "a", "stats.changed", b'{"n":1}')
    b.publish_state("stats", "b", "stats.changed", b'{"n":2}')
    carry(a, b)
    late = b.subscribe(EVERYONE, ["stats"])

    for subscription, is_snapshot in ((early, False), (late, True)):
        own, other = await states(subscription)
        assert (own["key"], own["own"], own["state_id"], own["data"]) == ("b", True, "b-1", {"n": 2})
        assert (other["key"], other["own"], other["state_id"], other["data"]) == ("a", False, "a-1", {"n": 1})
        assert {own["snapshot"], other["snapshot"]} == {is_snapshot}
        assert {own["coverage"], other["coverage"]} == {"fleet"}
    close(a, b)


async def test_only_the_latest_of_each_key_is_said() -> None:
    a, b = pair()
    for number in range(100):
        a.publish_state("runs/r1", "step", "run.step", str(number).encode())
    (message,) = carry(a, b)
    watching = b.subscribe(EVERYONE, ["runs/r1"])

    assert message.count(b"run.step") == 1
    assert [state["data"] for state in await states(watching)] == [99]
    close(a, b)


async def test_replica_that_comes_later_asks_and_is_told_everything() -> None:
    a, b = pair()
    a.publish_state("stats", "a", "stats.changed", b"1")
    b.publish_state("incidents", "i1", "incident.seen", b"2", owner="o", visibility="private")
    carry(a, b)
    c = replica("c")
    c.fleet.link_up()
    carry(a, b, c)

    assert c.fleet.replicas == ["a", "b"]
    everything = await states(c.subscribe(EVERYONE, ["stats", "incidents"]))
    assert sorted(str(state["key"]) for state in everything) == ["a", "i1"]
    assert await states(c.subscribe(Viewer(frozenset({"o"})), ["incidents"])) == [
        state for state in everything if state["key"] == "i1"
    ]
    assert not c.subscribe(Viewer(frozenset({"other"})), ["incidents"]).pending
    close(a, b, c)


async def test_what_was_said_before_is_not_news_when_it_is_said_again() -> None:
    a, b = pair()
    watching = b.subscribe(EVERYONE, ["stats"])
    a.publish_state("stats", "a", "stats.changed", b"1")
    carry(a, b)
    assert len(await states(watching)) == 1
    published = b.ledger.published
    a.fleet.link_up()
    assert carry(a, b)

    assert b.ledger.published == published
    close(a, b)


async def test_older_state_of_a_shared_key_does_not_replace_the_newer_one() -> None:
    a, b = pair()
    newer, older = ("2026-11-21T07:35:53.000Z", b"2"), ("2026-11-21T07:35:51.000Z", b"1")
    for number, (at, data) in enumerate((newer, older), 1):
        state = State(f"x{number}", number, "incidents", "i1", "incident.seen", at, Raw(data), "", "public")
        b.fleet.take(msgspec.json.encode({"replica": f"x{number}", "states": [state]}))

    assert [state["data"] for state in await states(b.subscribe(EVERYONE, ["incidents"]))] == [2]
    close(a, b)


async def test_lost_link_is_told_at_once_and_what_was_kept_is_said_when_it_is_back() -> None:
    a, b = pair()
    a.publish_state("stats", "a", "stats.changed", b"1")
    b.publish_state("stats", "b", "stats.changed", b"1")
    carry(a, b)
    watching = b.subscribe(EVERYONE, ["stats"])
    await states(watching)
    for each in (a, b):
        each.fleet.link_down()

    degraded = await states(watching)
    assert [(state["key"], state["coverage"], state["snapshot"]) for state in degraded] == [
        ("b", "degraded", False),
        ("a", "degraded", False),
    ]
    a.publish_state("stats", "a", "stats.changed", b"2")
    for each in (a, b):
        each.fleet.link_up()
    carry(a, b)
    back = {str(state["key"]): state for state in await states(watching)}
    assert {state["coverage"] for state in back.values()} == {"fleet"}
    assert back["a"]["data"] == 2
    close(a, b)


async def test_replica_that_leaves_is_gone_for_its_watchers_and_not_in_later_snapshots() -> None:
    a, b = pair()
    a.publish_state("stats", "a", "stats.changed", b"1")
    a.publish_state("incidents", "i1", "incident.seen", b"1")
    carry(a, b)
    watching = b.subscribe(EVERYONE, ["stats"])
    await states(watching)
    b.fleet.take(a.fleet.farewell())

    assert [(state["kind"], state["key"], state["data"]) for state in await states(watching)] == [
        ("stats.gone", "a", None)
    ]
    later = b.subscribe(EVERYONE, ["stats", "incidents"])
    assert [state["key"] for state in await states(later)] == ["i1"]
    assert b.fleet.replicas == []
    close(a, b)


class RecordingStates:
    replica = "b"
    coverage: Coverage = "fleet"

    def __init__(self) -> None:
        self.taken: list[State] = []
        self.forgotten: asyncio.Queue[str] = asyncio.Queue()

    def take_state(self, state: State) -> None:
        self.taken.append(state)

    def forget_replica(self, replica: str) -> None:
        self.forgotten.put_nowait(replica)

    def change_coverage(self, coverage: Coverage) -> None:
        self.coverage = coverage


async def test_replica_that_falls_silent_is_forgotten() -> None:
    states = RecordingStates()
    fleet = Fleet(states, silence_s=0.05)
    fleet.take(b'{"replica":"a"}')
    assert fleet.replicas == ["a"]

    async with asyncio.timeout(5):
        assert await states.forgotten.get() == "a"
    assert fleet.replicas == []


async def test_garbage_forgeries_and_floods_add_nothing_and_end_nothing() -> None:
    states = RecordingStates()
    fleet = Fleet(states)
    good = State("a", 1, "stats", "a", "stats.changed", "now", Raw(b"{}"), "", "public")
    of_another = msgspec.structs.replace(good, replica="z")
    of_a_log_topic = msgspec.structs.replace(good, topic="skills")
    for garbage in (
        b"", b"\xff", b"[]", b"{}", b'{"replica":7}', b'{"replica":""}', b'{"replica":"a","states":[[1]]}',
        b'{"replica":"%s"}' % (b"x" * 65), b'{"replica":"a","states":[%s]}' % (b" " * 1024 * 1024),
        msgspec.json.encode({"replica": "a", "states": [good]}).replace(b"{}", b"{"),
    ):  # fmt: skip
        fleet.take(garbage)
    assert (fleet.replicas, states.taken) == ([], [])

    fleet.take(msgspec.json.encode({"replica": "a", "states": [of_another, of_a_log_topic, good]}))
    assert states.taken == [good]
    for number in range(1000):
        fleet.take(b'{"replica":"flood-%d"}' % number)
    assert len(fleet.replicas) == 256
    fleet.close()


async def test_replica_without_a_link_keeps_nothing_for_one() -> None:
    alone = replica("a")
    alone.publish_state("stats", "a", "stats.changed", b"1")
    (state,) = await states(alone.subscribe(EVERYONE, ["stats"]))

    assert (state["coverage"], alone.fleet.news.is_set()) == ("local", False)
