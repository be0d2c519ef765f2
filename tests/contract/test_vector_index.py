"""What every vector index promises, asked of the matrix in memory and of a Milvus server process."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from services.failures import Unavailable
from services.ports import Hit, VectorIndex
from services.search.memory_index import MemoryIndex
from services.search.milvus_index import MilvusIndex

pytestmark = pytest.mark.anyio

DIM = 16


class MilvusServer:
    """`milvus-lite server` on a folder; `start` returns when it accepts connections."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("milvus-lite")), "server", "--data-dir", str(self._folder)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self._process.poll() is None, "the Milvus server ended while starting"
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail("the Milvus server did not start within 20 s")

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
            self._process = None


def _free_port() -> int:
    for port in range(21_000, 32_000, 7):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port")


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "milvus"])
async def index(request: pytest.FixtureRequest) -> AsyncIterator[VectorIndex]:
    opened: VectorIndex
    if request.param == "memory":
        opened = MemoryIndex(DIM)
    else:
        server: MilvusServer = request.getfixturevalue("milvus")
        opened = MilvusIndex(server.uri, model=f"test-{secrets.token_hex(4)}@1", dim=DIM)
    yield opened
    await opened.close()


def unit(*numbers: float) -> bytes:
    vector = np.zeros(DIM, dtype="<f4")
    vector[: len(numbers)] = numbers
    encoded: bytes = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
    return encoded


async def eventually(index: VectorIndex, vector: bytes, limit: int, holds: Callable[[list[Hit]], bool]) -> list[Hit]:
    """Reads may lag writes (Milvus reads are bounded-stale): asks until `holds`, at most 5 s."""
    async with asyncio.timeout(5):
        while not holds(hits := await index.search(vector, limit)):  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.05)
    return hits


async def test_search_answers_best_first_with_the_cosine(index: VectorIndex) -> None:
    await index.upsert({"o/x": unit(1), "o/y": unit(0, 1), "o/xy": unit(1, 1)})
    hits = await eventually(index, unit(1), 10, lambda hits: len(hits) == 3)
    assert [hit.id for hit in hits] == ["o/x", "o/xy", "o/y"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.7071, 0.0], abs=1e-3)


async def test_equal_scores_come_in_order_of_id(index: VectorIndex) -> None:
    await index.upsert({id_: unit(1) for id_ in ("o/c", "o/a", "o/b")})
    hits = await eventually(index, unit(1), 10, lambda hits: len(hits) == 3)
    assert [hit.id for hit in hits] == ["o/a", "o/b", "o/c"]


async def test_at_most_limit_hits(index: VectorIndex) -> None:
    await index.upsert({f"o/{n}": unit(1, n / 10) for n in range(10)})
    hits = await eventually(index, unit(1), 3, lambda hits: len(hits) == 3)
    assert [hit.id for hit in hits] == ["o/0", "o/1", "o/2"]


async def test_an_upsert_replaces_the_vector_of_the_same_id(index: VectorIndex) -> None:
    await index.upsert({"o/a": unit(1), "o/b": unit(0, 1)})
    await index.upsert({"o/a": unit(0, 0, 1)})
    hits = await eventually(index, unit(0, 0, 1), 5, lambda hits: bool(hits) and hits[0].score > 0.9)
    assert [hit.id for hit in hits] == ["o/a", "o/b"]
    assert await index.count() == 2


async def test_deleted_ids_are_gone_and_unknown_ones_harmless(index: VectorIndex) -> None:
    await index.upsert({"o/a": unit(1), "o/b": unit(0, 1), "o/c": unit(0, 0, 1)})
    await index.delete(["o/a", "o/nobody"])
    hits = await eventually(index, unit(1), 5, lambda hits: len(hits) == 2)
    assert {hit.id for hit in hits} == {"o/b", "o/c"}
    assert await index.count() == 2
    assert (await index.search(unit(0, 0, 1), 1))[0].id == "o/c"


async def test_an_empty_index_finds_nothing(index: VectorIndex) -> None:
    assert await index.search(unit(1), 5) == []
    assert await index.count() == 0
    await index.upsert({})
    await index.delete([])
    assert await index.count() == 0


async def test_nearest_of_many_is_the_nearest(index: VectorIndex) -> None:
    random = np.random.default_rng(7)
    matrix = random.standard_normal((700, DIM)).astype("<f4")
    matrix /= np.linalg.norm(matrix, axis=1)[:, None]
    for at in range(0, 700, 100):
        await index.upsert({f"o/{n}": matrix[n].tobytes() for n in range(at, at + 100)})
    await index.delete([f"o/{n}" for n in range(0, 700, 2)])
    left = np.arange(1, 700, 2)
    found = 0
    for query in matrix[:20]:
        exact = {f"o/{n}" for n in left[np.argsort(-(matrix[left] @ query))[:10]]}
        found += len(exact & {hit.id for hit in await index.search(query.tobytes(), 10)})
    assert found / 200 >= 0.99


async def _reconnected(index: VectorIndex) -> None:
    """gRPC leaves an address that refused it alone for a second or two."""
    async with asyncio.timeout(5):
        while True:
            try:
                await index.count()
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_milvus_keeps_its_rows_across_clients_and_a_killed_server(tmp_path: Path) -> None:
    server = MilvusServer(tmp_path)
    server.start()
    model = "restart@1"
    first = MilvusIndex(server.uri, model=model, dim=DIM, timeout_s=2)
    try:
        await first.upsert({"o/a": unit(1), "o/b": unit(0, 1)})
        server.kill()
        with pytest.raises(Unavailable):
            await first.search(unit(1), 1)
        server.start()
        await _reconnected(first)
        assert [hit.id for hit in await first.search(unit(1), 2)] == ["o/a", "o/b"]
        second = MilvusIndex(server.uri, model=model, dim=DIM)
        assert await second.count() == 2
        await second.close()
    finally:
        await first.close()
        server.kill()


async def test_milvus_that_is_not_there_is_unavailable() -> None:
    index = MilvusIndex(f"http://127.0.0.1:{_free_port()}", model="nobody@1", dim=DIM, timeout_s=1)
    with pytest.raises(Unavailable):
        await index.count()
    await index.close()
