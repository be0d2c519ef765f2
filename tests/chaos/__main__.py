"""`make chaos`: real processes, real faults, and a judgement of what the clients saw."""

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import click
import httpx2

from services.clock import monotonic_s
from services.storage.sql import SqlStore
from tests.chaos.clients import HEADER, Clients
from tests.chaos.cluster import ALL, DEFAULT, L2_FAULTS, WRITER_DIES, Cluster, trouble

NAMES = ("alpha", "beta", "gamma", "delta")
READERS = 6
P99_MS_MAX = 100.0


async def honoured_levels(client: httpx2.AsyncClient, url: str) -> tuple[str, ...]:
    """A server that knows the header refuses nonsense in it."""
    answer = await client.get(f"{url}/api/v1/skills", headers={"x-consistency": "nonsense"})
    return ("bounded", "session", "linearizable") if answer.status_code == 400 else ("bounded",)


async def kill_writers(cluster: Cluster, clients: Clients, store: SqlStore, name: str, until_s: float) -> None:
    """Publishes through one replica and kills it as soon as the database holds the version."""
    while monotonic_s() < until_s:
        index = cluster.any()
        before = await version_of(store, name)
        writing = asyncio.create_task(clients.write(name, cluster.urls[index]))
        while not writing.done():
            if (version := await version_of(store, name)) > before:
                clients.phase.written_s[name].setdefault(version, monotonic_s())
                break
            await asyncio.sleep(0.001)
        await cluster.kill(index)
        await writing
        await cluster.boot(index)


async def version_of(store: SqlStore, name: str) -> int:
    skills = (await store.snapshot()).skills
    return next(skill.last_version for skill in skills if skill.name == name)


async def run(seconds: float, replicas: int, faults: tuple[str, ...], usual: bool) -> list[str]:
    """Prints a row per fault; answers what was promised and not kept."""
    broken: list[str] = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        cluster = Cluster(Path(folder), replicas, usual=usual)
        stack.push_async_callback(cluster.close)
        await cluster.start()
        store = await SqlStore.open(cluster.database_url)
        stack.push_async_callback(store.close)
        client = await stack.enter_async_context(httpx2.AsyncClient())
        levels = await honoured_levels(client, cluster.urls[0])
        if len(levels) == 1:
            click.echo("session and linearizable: skipped, the server does not honour X-Consistency")
        clients = Clients(cluster, client, NAMES, levels)
        for name in NAMES:
            await clients.write(name)
        await asyncio.sleep(1)
        click.echo(HEADER)
        for fault in faults:
            clients.begin()
            until_s = monotonic_s() + seconds
            dying = NAMES[-1:] if fault in (WRITER_DIES, ALL) else ()
            async with asyncio.TaskGroup() as group:
                for _ in range(READERS):
                    group.create_task(clients.read_on(until_s))
                for name in NAMES:
                    if name not in dying:
                        group.create_task(clients.write_on(name, until_s))
                for name in dying:
                    group.create_task(kill_writers(cluster, clients, store, name, until_s))
                group.create_task(trouble(cluster, fault, seconds))
            phase = clients.phase
            click.echo(phase.row(fault))
            wrong = [*phase.beyond_bound(), *phase.forgotten_writes(), *phase.stale_linearizable()]
            broken += [f"{fault}: {phase.missed_s(read) * 1000:.0f} ms: {read}" for read in wrong]
            errors = [read for read in phase.reads if read.error]
            if fault in L2_FAULTS:
                broken += [f"{fault}: {read}" for read in errors]
                took_ms = sorted((read.returned_s - read.invoked_s) * 1000 for read in phase.reads)
                if took_ms[len(took_ms) * 99 // 100] > P99_MS_MAX:
                    broken.append(f"{fault}: p99 is over {P99_MS_MAX:.0f} ms")
    return broken


@click.command()
@click.option("--usual", is_flag=True, help="The delete-and-publish algorithm instead, on the same faults.")
def main(usual: bool) -> None:
    """CHAOS_SECONDS (10) per fault, CHAOS_REPLICAS (3), CHAOS_FAULTS (all, or names separated by commas)."""
    faults = tuple(filter(None, os.environ.get("CHAOS_FAULTS", "").split(","))) or DEFAULT
    seconds = float(os.environ.get("CHAOS_SECONDS", "10"))
    replicas = int(os.environ.get("CHAOS_REPLICAS", "3"))
    broken = asyncio.run(run(seconds, replicas, faults, usual))
    for line in broken[:20]:
        click.echo(line)
    click.echo(f"{len(broken)} promises broken")
    sys.exit(bool(broken) is not usual)


if __name__ == "__main__":
    main()
