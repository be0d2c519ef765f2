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
from tests.chaos import database, signs
from tests.chaos.clients import HEADER, Clients
from tests.chaos.cluster import ALL, DATABASE_FAULTS, DEFAULT, L2_FAULTS, WRITER_DIES, Cluster, trouble
from tests.support.postgres import running_server

NAMES = ("alpha", "beta", "gamma", "delta")
READERS = 6
P99_MS_MAX = 100.0
# Whoever writes into Redis all the time can make a read wait for its record to be refilled, up to `LEASE_WAIT_S`,
# but not be answered wrongly.
WRITTEN_TO = ("poison", "forge")


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


class Run:
    """One cluster under one fault after another."""

    def __init__(self, cluster: Cluster, clients: Clients, client: httpx2.AsyncClient, store: SqlStore) -> None:
        self._cluster = cluster
        self._clients = clients
        self._client = client
        self._store = store

    async def under(self, fault: str, seconds: float) -> list[str]:
        """Prints the fault's row; answers what was promised and not kept."""
        clients = self._clients
        clients.begin()
        before = await signs.counted(self._client, self._cluster.urls)
        broken = await (self._database(fault, seconds) if fault in DATABASE_FAULTS else self._others(fault, seconds))
        phase = clients.phase
        click.echo(phase.row(fault))
        wrong = [*phase.beyond_bound(), *phase.forgotten_writes(), *phase.stale_linearizable()]
        broken += [f"{fault}: {phase.missed_s(read) * 1000:.0f} ms: {read}" for read in wrong]
        if fault in (*L2_FAULTS, "db_frozen"):
            broken += [f"{fault}: {read}" for read in phase.reads if read.error]
            if fault not in WRITTEN_TO and phase.p99_ms() > P99_MS_MAX + phase.floor_p99_ms():
                broken.append(f"{fault}: p99 is over {P99_MS_MAX:.0f} ms and what /livez takes")
        grew = signs.grown(before, await signs.counted(self._client, self._cluster.urls))
        return broken + signs.missing_signs(fault, grew, postgres=self._cluster.postgres is not None)

    async def _database(self, fault: str, seconds: float) -> list[str]:
        cluster, clients = self._cluster, self._clients
        if fault == "db_frozen":
            found = await database.frozen(cluster, clients, READERS, seconds)
        elif fault == "restored":
            found = await database.restored(cluster, clients, self._store, self._client)
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reading(seconds))
                pausing = group.create_task(database.writer_paused(cluster, clients, seconds))
            found = pausing.result()
        return [f"{fault}: {each}" for each in found]

    async def _reading(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._clients.read_on(monotonic_s() + seconds))

    async def _others(self, fault: str, seconds: float) -> list[str]:
        cluster, clients, until_s = self._cluster, self._clients, monotonic_s() + seconds
        dying = NAMES[-1:] if fault in (WRITER_DIES, ALL) else ()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reading(seconds))
            for name in NAMES:
                if name not in dying:
                    group.create_task(clients.write_on(name, until_s))
            for name in dying:
                group.create_task(kill_writers(cluster, clients, self._store, name, until_s))
            group.create_task(trouble(cluster, fault, seconds))
        return []


async def run(seconds: float, replicas: int, faults: tuple[str, ...], *, postgres: bool, usual: bool) -> list[str]:
    """Prints a row per fault; answers what was promised and not kept."""
    broken: list[str] = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        server = stack.enter_context(running_server()) if postgres else None
        cluster = Cluster(Path(folder), replicas, postgres=server, usual=usual)
        stack.push_async_callback(cluster.close)
        await cluster.start()
        store = await SqlStore.open(cluster.database_url)
        stack.push_async_callback(store.close)
        client = await stack.enter_async_context(httpx2.AsyncClient())
        levels = await honoured_levels(client, cluster.urls[0])
        if usual:
            click.echo("session, linearizable and metrics: skipped, the usual server has none")
            faults = tuple(fault for fault in faults if fault not in DATABASE_FAULTS)
        clients = Clients(cluster, client, NAMES, levels)
        for name in NAMES:
            await clients.write(name)
        await asyncio.sleep(1)
        click.echo(HEADER)
        judged = Run(cluster, clients, client, store)
        for fault in faults:
            broken += await judged.under(fault, seconds)
    return broken


@click.command()
@click.option("--usual", is_flag=True, help="The delete-and-publish algorithm instead, on the same faults.")
def main(usual: bool) -> None:
    """CHAOS_SECONDS (10) per fault, CHAOS_REPLICAS (3), CHAOS_DATABASE (sqlite or postgres), CHAOS_FAULTS
    (all, or names separated by commas)."""
    faults = tuple(filter(None, os.environ.get("CHAOS_FAULTS", "").split(","))) or DEFAULT
    seconds = float(os.environ.get("CHAOS_SECONDS", "10"))
    replicas = int(os.environ.get("CHAOS_REPLICAS", "3"))
    postgres = {"sqlite": False, "postgres": True}[os.environ.get("CHAOS_DATABASE", "sqlite")]
    if unknown := set(faults) - set(DEFAULT):
        raise click.UsageError(f"unknown faults: {', '.join(sorted(unknown))}; known: {', '.join(DEFAULT)}")
    broken = asyncio.run(run(seconds, replicas, faults, postgres=postgres, usual=usual))
    for line in broken[:20]:
        click.echo(line)
    click.echo(f"{len(broken)} promises broken")
    sys.exit(bool(broken) is not usual)


if __name__ == "__main__":
    main()
