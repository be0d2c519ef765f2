"""What is done to the database itself, and what must be seen meanwhile.

`db_frozen`     PostgreSQL: every process of the server is stopped. SQLite: somebody holds its write lock.
`writer_paused` a replica is stopped at a random moment around its commit.
`restored`      an older backup is put back under running replicas.
"""

import asyncio
import random
import signal

import httpx2

from services.changes.log import DELTA_S, STRICT_TIMEOUT_S
from services.clock import monotonic_s
from services.storage.postgres import READ_TIMEOUT_S, WRITE_TIMEOUT_S
from services.storage.sql import SqlStore
from tests.chaos.clients import NEWER, OWNER, Clients
from tests.chaos.cluster import Cluster

# What a busy machine adds to a time limit.
SLACK_S = 1.5
RECOVERY_S = 8.0
# A writer beside a stopped one: its own work, and the others' that it may have to plan anew after.
BESIDE_A_PAUSED_S = 1.5
_PAUSED_S = 1.8


async def frozen(cluster: Cluster, clients: Clients, readers: int, seconds: float) -> list[str]:
    """Cached answers go on at once and labelled; whoever needs the database is told so in time."""
    broken: list[str] = []
    await clients.read_everything()
    cluster.freeze_database()
    from_s = monotonic_s()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(readers):
                group.create_task(clients.read_on(from_s + seconds, ("bounded",)))
            refusals = [
                group.create_task(_refused(clients, broken, "a write", WRITE_TIMEOUT_S, from_s + seconds)),
            ]
            if cluster.postgres is not None:  # readers of SQLite never wait for writers
                late_s = READ_TIMEOUT_S
                refusals.append(group.create_task(_refused(clients, broken, "uncached", late_s, from_s + seconds)))
                strict_s = STRICT_TIMEOUT_S
                refusals.append(group.create_task(_refused(clients, broken, "strict", strict_s, from_s + seconds)))
    finally:
        cluster.thaw_database()
    if not all(task.result() for task in refusals):
        broken.append("nothing was asked that needs the database")
    for read in clients.phase.reads:
        is_due = read.invoked_s > from_s + DELTA_S and read.returned_s < from_s + seconds
        if cluster.postgres is not None and is_due and not read.error and not read.stale:
            broken.append(f"no label while the database was frozen: {read}")
    return broken + await _recovered(cluster, clients)


async def _refused(clients: Clients, broken: list[str], what: str, limit_s: float, until_s: float) -> int:
    """Asks what only the database knows until the time is up; answers how often."""
    asked = 0
    while monotonic_s() < until_s - limit_s:
        asked += 1
        sent_s = monotonic_s()
        status = await clients.status_of(what)
        took_s = monotonic_s() - sent_s
        if status != 503:
            broken.append(f"{what}: {status} instead of 503 while the database was frozen")
        if took_s > limit_s + SLACK_S:
            broken.append(f"{what}: refused after {took_s:.1f} s")
    return asked


async def _recovered(cluster: Cluster, clients: Clients) -> list[str]:
    """Every replica answers without a label, and takes writes, within `RECOVERY_S`."""
    until_s, wrong = monotonic_s() + RECOVERY_S, ["never asked"]
    while wrong and monotonic_s() < until_s:
        writes = [await clients.write(name, url) for name, url in zip(clients.names, cluster.urls, strict=False)]
        seen = await clients.read_everything()
        wrong = [f"after the database had come back: {read}" for read in seen if read.stale or read.error]
        wrong += ["a write after the database had come back" for written in writes if not written]
    return wrong


async def writer_paused(cluster: Cluster, clients: Clients, seconds: float) -> list[str]:
    """While one replica is stopped around its commit, the others' writes go on."""
    broken: list[str] = []
    until_s = monotonic_s() + seconds
    while monotonic_s() < until_s:
        index = cluster.any()
        others = [url for place, url in enumerate(cluster.urls) if place != index]
        writing = asyncio.create_task(clients.write(clients.names[0], cluster.urls[index]))
        # A publish takes some 10 to 60 ms, its commit the end of them.
        await asyncio.sleep(random.uniform(0, 0.06))
        cluster.signal(index, signal.SIGSTOP)
        resume_s = monotonic_s() + _PAUSED_S
        try:
            for name in clients.names[1:]:
                sent_s = monotonic_s()
                written = await clients.write(name, random.choice(others))
                took_s = monotonic_s() - sent_s
                # The lock of SQLite is the operating system's: a process that is stopped goes on holding it.
                if cluster.postgres is not None and (not written or took_s > BESIDE_A_PAUSED_S):
                    broken.append(f"a write beside a paused one took {took_s:.1f} s, written: {written}")
            await asyncio.sleep(max(0.0, resume_s - monotonic_s()))
        finally:
            cluster.signal(index, signal.SIGCONT)
        await writing
    return broken


async def restored(cluster: Cluster, clients: Clients, store: SqlStore, client: httpx2.AsyncClient) -> list[str]:
    """Nothing of the history that is gone is believed: no record, no session, no stream position."""
    broken: list[str] = []
    # As the database has it: a write before that was never answered may be there all the same.
    kept = {skill.name: skill.last_version for skill in (await store.snapshot()).skills if skill.name in clients.names}
    await asyncio.to_thread(cluster.back_up)
    for _ in range(3):
        for name in clients.names:
            await clients.write(name)
    await clients.read_everything()  # now every tier holds what is about to be undone
    gone = await store.head()
    await asyncio.to_thread(cluster.restore)
    restored_s = monotonic_s()
    clients.rewind(kept)
    while monotonic_s() < restored_s + 2.0:
        for read in await clients.read_everything():
            expected = kept[read.name] if read.asked in (0, kept[read.name]) else NEWER
            if read.invoked_s > restored_s + DELTA_S and not read.stale and read.version != expected:
                broken.append(f"version {expected} was restored: {read}")
    now = await store.head()
    if now.epoch == gone.epoch:
        broken.append("the log has its old epoch")
    for url in cluster.urls:
        broken += await _forgotten(client, url, gone.id, clients.names[0])
    for name in clients.names:
        digest = await clients.write(name)  # under a number that was given out before the restore
        version = kept[name] + 1
        for url in cluster.urls:
            path = f"{url}/api/v1/skills/{OWNER}/{name}/versions/{version}"
            answer = await client.get(path, headers={"x-consistency": "linearizable"}, timeout=5)
            if not digest or answer.json().get("data", {}).get("digest") != digest:
                broken.append(f"version {version} of {name} is not what was published after the restore")
    return broken


async def _forgotten(client: httpx2.AsyncClient, url: str, gone_id: str, name: str) -> list[str]:
    """Whether a place of the old history is refused, by reads and by streams."""
    broken: list[str] = []
    headers = {"x-consistency": f"session={gone_id}"}
    answer = await client.get(f"{url}/api/v1/skills/{OWNER}/{name}", headers=headers, timeout=5)
    if answer.status_code != 409:
        broken.append(f"a session of the old history was answered {answer.status_code}")
    line = ""
    events = f"{url}/events?topics=skills"
    async with client.stream("GET", events, headers={"last-event-id": gone_id}, timeout=5) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("event:") and "hello" not in line:
                break
    if "reset" not in line:
        broken.append(f"a position of the old history was resumed: {line}")
    return broken
