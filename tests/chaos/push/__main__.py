"""`make chaos-push`: clients hop between replicas and transports while replicas are killed; each must have exactly
the rows it may see, in order, once."""

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click

from services.clock import monotonic_s
from services.models import Change, Visibility
from services.storage.sql import SqlStore
from tests.chaos.push.clients import Client
from tests.chaos.push.replica import RING_EVENTS
from tests.support.drafts import draft, tool

OWNERS = tuple(f"owner-{number}" for number in range(12))
TOPICS = ("skills", "tools")
VISIBILITIES: tuple[Visibility, ...] = ("public", "private", "private")
CATCH_UP_S = 60.0


class Replica:
    """A process that is started again on the port it had."""

    def __init__(self, nursery: asyncio.subprocess.Process, kind: str) -> None:
        self._nursery = nursery
        self._kind = kind
        self._pid = 0
        self.port = 0

    async def boot(self) -> None:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{self.port} {self._kind}\n".encode())
        self.port, self._pid = map(int, (await self._nursery.stdout.readline()).split())

    async def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
            while True:
                os.kill(self._pid, 0)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def nursery_for(url: str, ring: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.push.replica", url, str(ring),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def publish(store: SqlStore, rng: random.Random, until_s: float) -> int:
    count = 0
    while monotonic_s() < until_s:
        owner, visibility = rng.choice(OWNERS), rng.choice(VISIBILITIES)
        tools = [tool(f"t{count}")] if rng.random() < 0.5 else []
        name = f"{'open' if visibility == 'public' else 'own'}-{rng.randrange(5)}"
        await store.publish([draft(name, f"text {count}", owner=owner, visibility=visibility, tools=tools)])
        count += 1
        await asyncio.sleep(rng.uniform(0, 0.05))
    return count


async def rows_of(store: SqlStore) -> Sequence[Change]:
    rows: list[Change] = []
    while page := await store.tail(len(rows), 500):
        rows += page
    return rows


async def trouble(replicas: list[Replica], rng: random.Random, until_s: float) -> dict[str, int]:
    """One replica after the other, killed twice as often as ended in peace."""
    counts = {"SIGKILL": 0, "SIGTERM": 0}
    while monotonic_s() < until_s:
        await asyncio.sleep(rng.uniform(0.3, 1.2))
        replica = rng.choice(replicas)
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
        counts[number.name] += 1
        await replica.end(number)
        await replica.boot()
    return counts


async def run(seconds: float, count: int, kinds: Sequence[str], ring: int, seed: int) -> list[str]:
    """Prints what was done; answers what was promised and not kept."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-push-"))
        url = os.environ.get("SKILLWIRE_DATABASE_URL") or f"sqlite:///{Path(folder)}/skillwire.db"
        store = await SqlStore.open(url)
        stack.push_async_callback(store.close)
        await store.publish([draft("first")])
        start = await store.head()
        nursery = await stack.enter_async_context(nursery_for(url, ring))
        replicas = [Replica(nursery, kind) for kind in kinds]
        for replica in replicas:
            await replica.boot()
            stack.push_async_callback(replica.end, signal.SIGKILL)
        clients = [
            Client(
                rng,
                frozenset(rng.sample(OWNERS, rng.randint(1, 4))),
                frozenset(rng.sample(TOPICS, rng.randint(1, 2))),
                start.id,
            )
            for _ in range(count)
        ]
        is_over = asyncio.Event()
        last: asyncio.Future[Sequence[Change]] = asyncio.get_running_loop().create_future()
        ports = [replica.port for replica in replicas]
        until_s = monotonic_s() + seconds
        troubling = asyncio.create_task(trouble(replicas, rng, until_s))
        running = [asyncio.create_task(client.run(ports, is_over, last)) for client in clients]
        published = await publish(store, rng, until_s)
        ends = await troubling
        rows = (await rows_of(store))[start.seq :]
        last.set_result(rows)
        is_over.set()
        _, late = await asyncio.wait(running, timeout=CATCH_UP_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    broken = [
        f"client {number}: {len(client.received)} of {len(client.wanted(rows))} rows, resets {client.resets}"
        for number, client in enumerate(clients)
        if client.received != client.wanted(rows) or client.resets
    ]
    broken += [repr(task.exception()) for task in running if not task.cancelled() and task.exception()]
    delivered = sum(len(client.received) for client in clients)
    hops = {each: sum(client.connected[each] for client in clients) for each in ("ws", "sse")}
    polite = sum(client.ended_politely for client in clients)
    click.echo(
        f"{seconds:.0f} s, seed {seed}, ring {ring}, {'+'.join(kinds)}: {published} publishes, {len(rows)} rows, "
        f"{delivered} deliveries, {ends['SIGKILL']} kills, {ends['SIGTERM']} ends, "
        f"subscribed over {hops['ws']} WebSockets and {hops['sse']} event streams, "
        f"{polite} told bye: {count - len(broken)} of {count} exact"
    )
    return broken


@click.command()
@click.option("--seconds", default=20.0, show_default=True)
@click.option("--runs", default=3, show_default=True)
@click.option("--clients", default=40, show_default=True)
@click.option("--kinds", default="raw,asgi", show_default=True, help="One replica for each: raw or asgi.")
@click.option("--ring", default=RING_EVENTS, show_default=True, help="Rows that each replica keeps in memory.")
@click.option("--seed", default=1, show_default=True)
def main(seconds: float, runs: int, clients: int, kinds: str, ring: int, seed: int) -> None:
    """Kill replicas under clients that hop between WebSocket and SSE."""
    broken: list[str] = []
    for number in range(runs):
        broken += asyncio.run(run(seconds, clients, kinds.split(","), ring, seed + number))
    for line in broken[:20]:
        click.echo(line)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
