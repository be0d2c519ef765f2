"""Real replica processes on one database and one Valkey, and what can be done to them."""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError

from services.clock import monotonic_s
from tests.support.postgres import PostgresServer
from tests.support.restored import back_up, restore
from tests.support.service import Service, command, environment
from tests.support.valkey import ValkeyServer


class Cluster:
    """`start` and `close` it; `urls` are the replicas', one that is down included. On `postgres`, if given,
    else on a file of SQLite."""

    def __init__(
        self, folder: Path, replicas: int, *, postgres: PostgresServer | None = None, usual: bool = False
    ) -> None:
        self.folder = folder
        self.valkey = ValkeyServer(folder)
        self.postgres = postgres
        self._file = folder / "skillwire.db"
        self._lock: sqlite3.Connection | None = None
        self.database_url = f"sqlite:///{self._file}" if postgres is None else postgres.url()
        self._usual = usual
        self._replicas: list[Service | None] = [None] * replicas
        self._seen: dict[str, list[bytes]] = {}
        self._keys: list[str] = []

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self._replicas if replica is not None]

    async def start(self) -> None:
        (self.folder / "skills").mkdir()
        await self.valkey.start()
        for index in range(len(self._replicas)):
            await self.boot(index)

    async def close(self) -> None:
        self.valkey.thaw()
        self.thaw_database()
        for replica in self._replicas:
            if replica is not None:
                replica.process.send_signal(signal.SIGCONT)
                await asyncio.to_thread(replica.stop)
        await self.valkey.kill()

    async def boot(self, index: int) -> None:
        """Starts a replica, on the port it had before."""
        before = self._replicas[index]
        port = str(before.port if before is not None else 0)
        options = ("serve", "--port", port, "--skills", str(self.folder / "skills"), "--data", str(self.folder))
        words = [sys.executable, "-m", "tests.chaos.usual", port] if self._usual else command(*options)
        settings = {"watch": "off", "embedder": "off", "redis_url": self.valkey.url, "cache_audit_one_in": "20"}
        process = subprocess.Popen(  # noqa: ASYNC220  # returns at once; `Service` wants this kind
            words,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**settings, database_url=self.database_url),
        )
        self._replicas[index] = replica = Service(process)
        replica.port = int(port)
        await asyncio.to_thread(replica.wait_ready)

    def signal(self, index: int, number: signal.Signals) -> None:
        replica = self._replicas[index]
        assert replica is not None
        replica.process.send_signal(number)

    async def kill(self, index: int) -> None:
        replica = self._replicas[index]
        assert replica is not None
        await asyncio.to_thread(replica.stop, signal.SIGKILL)

    def freeze_database(self) -> None:
        """PostgreSQL answers nobody; SQLite takes nobody's writes."""
        if self.postgres is not None:
            self.postgres.freeze()
        else:
            self._lock = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=5)
            self._lock.execute("BEGIN IMMEDIATE")

    def thaw_database(self) -> None:
        if self.postgres is not None:
            self.postgres.thaw()
        elif self._lock is not None:
            self._lock.close()
            self._lock = None

    def back_up(self) -> None:
        if self.postgres is not None:
            self.postgres.back_up()
        else:
            back_up(self._file, self.folder / "backup.db")

    def restore(self) -> None:
        """Puts the backup back under the replicas' feet."""
        if self.postgres is not None:
            self.postgres.restore()
        else:
            restore(self._file, self.folder / "backup.db")

    def any(self) -> int:
        return random.randrange(len(self._replicas))

    async def poison(self, *, forge: bool = False) -> None:
        """Puts values back that were there before, and cuts some short. `forge` claims that they are newer
        than everything, or puts another key's in their place."""
        async with redis.Redis.from_url(self.valkey.url, protocol=2, socket_timeout=0.5) as client:
            for key in [key async for key in client.scan_iter("skillwire:*")]:
                if await client.type(key) != b"string" or not (value := await client.get(key)):
                    continue
                seen = self._seen.setdefault(key, [])
                if value not in seen:
                    seen.append(value)  # type: ignore[arg-type]  # redis-py does not know what it was told
                old = random.choice(seen)
                if forge:
                    old = random.choice([seen[0], *(others[0] for others in self._seen.values())])
                    old = old[:4] + (10**12).to_bytes(8, "big") + old[12:]
                elif random.random() < 0.5:
                    old = old[: len(old) // 2]
                await client.set(key, old, px=60_000)

    async def command(self, *words: str) -> None:
        """One command to Valkey; its answer, if any, is of no interest."""
        try:
            async with redis.Redis.from_url(self.valkey.url, protocol=2, socket_timeout=0.5) as client:
                await client.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return


Trouble = Callable[[Cluster], Awaitable[None]]


async def _nothing(_: Cluster) -> None:
    await asyncio.sleep(0.1)


async def _flush(cluster: Cluster) -> None:
    await cluster.command("FLUSHALL")
    await asyncio.sleep(random.uniform(0.05, 0.4))


async def _links(cluster: Cluster) -> None:
    for kind in ("pubsub", "normal"):
        await cluster.command("CLIENT", "KILL", "TYPE", kind)
    await asyncio.sleep(random.uniform(0.05, 0.5))


async def _poison(cluster: Cluster, *, forge: bool = False) -> None:
    try:
        await cluster.poison(forge=forge)
    except (RedisError, OSError):
        return
    finally:
        await asyncio.sleep(0.02)  # a record is read from L2 within milliseconds of being put there


async def _pause(cluster: Cluster) -> None:
    index = cluster.any()
    cluster.signal(index, signal.SIGSTOP)
    await asyncio.sleep(random.uniform(1.0, 2.0))
    cluster.signal(index, signal.SIGCONT)
    await asyncio.sleep(random.uniform(0.3, 1.0))


async def _freeze_valkey(cluster: Cluster) -> None:
    cluster.valkey.freeze()
    await asyncio.sleep(random.uniform(0.3, 2.0))
    cluster.valkey.thaw()
    await asyncio.sleep(random.uniform(0.3, 1.0))


async def _restart_valkey(cluster: Cluster) -> None:
    await cluster.valkey.kill()
    await asyncio.sleep(random.uniform(0.1, 1.0))
    await cluster.valkey.start()
    await asyncio.sleep(random.uniform(0.5, 1.5))


async def _restart_replica(cluster: Cluster) -> None:
    index = cluster.any()
    await cluster.kill(index)
    await cluster.boot(index)
    await asyncio.sleep(random.uniform(0.3, 1.0))


FAULTS: dict[str, Trouble] = {
    "none": _nothing,
    "flush": _flush,
    "links": _links,
    "poison": _poison,
    "valkey frozen": _freeze_valkey,
    "valkey killed": _restart_valkey,
    "replica paused": _pause,
    "replica killed": _restart_replica,
    "forge": partial(_poison, forge=True),
}
# Frozen from the beginning to the end.
VALKEY_SILENT = "valkey silent"
# Under these every read must be answered, and soon.
L2_FAULTS = ("none", "flush", "links", "poison", "forge", "valkey frozen", VALKEY_SILENT, "valkey killed")
# The writer that dies right after its commit is the clients' business: they know what is being written.
WRITER_DIES = "writer killed"
ALL = "all"
# The database's own, see `database.py`.
DATABASE_FAULTS = ("db_frozen", "writer_paused", "restored")
DEFAULT = (*FAULTS, VALKEY_SILENT, WRITER_DIES, *DATABASE_FAULTS, ALL)


async def trouble(cluster: Cluster, fault: str, seconds: float) -> None:
    """Does the fault again and again; all that it stopped runs when this ends."""
    if fault == VALKEY_SILENT:
        cluster.valkey.freeze()
        await asyncio.sleep(seconds)
        cluster.valkey.thaw()
        return
    until_s = monotonic_s() + seconds
    acts = [FAULTS.get(fault, _nothing)]
    if fault == ALL:
        acts = [*(FAULTS[name] for name in L2_FAULTS if name in FAULTS), _pause]
    while monotonic_s() < until_s:
        await random.choice(acts)(cluster)
