"""The sentence model in its real child process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from services.failures import Exhausted, TooLarge, Unavailable
from services.search.embed import JOBS_WAITING_MAX, TEXT_BYTES_MAX, TEXTS_MAX, UseEmbedder

pytestmark = pytest.mark.anyio


@pytest.fixture
async def embedder() -> AsyncIterator[UseEmbedder]:
    embedder = UseEmbedder(idle_s=60)
    yield embedder
    await embedder.close()


def _cosine(a: bytes, b: bytes) -> float:
    return float(np.frombuffer(a, "<f4") @ np.frombuffer(b, "<f4"))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.02)


async def test_texts_become_unit_vectors_in_order_in_a_process_of_their_own(embedder: UseEmbedder) -> None:
    assert embedder.child_pid is None
    texts = [f"skill number {n}" for n in range(40)] + ["", "你好"]
    vectors = await embedder.embed(texts)
    assert embedder.child_pid not in (None, os.getpid())
    assert {len(vector) for vector in vectors} == {embedder.dim * 4}
    assert [_cosine(vector, vector) for vector in vectors] == pytest.approx([1.0] * len(texts), abs=1e-4)
    [again] = await embedder.embed(["skill number 23"])
    assert _cosine(vectors[23], again) == pytest.approx(1.0, abs=1e-4)


async def test_meaning_is_near_across_languages(embedder: UseEmbedder) -> None:
    query, near, far = await embedder.embed(["检查代码中的错误", "review source code for bugs", "greet a person"])
    assert _cosine(query, near) > _cosine(query, far) + 0.2


async def test_callers_at_the_same_time_each_get_their_own_vectors(embedder: UseEmbedder) -> None:
    words = ["apple", "granite", "sonata", "invoice", "harbour"] * 6
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(embedder.embed([word]) for word in words))
    [apple, granite] = await embedder.embed(["apple", "granite"])
    assert _cosine(answers[5][0], apple) == pytest.approx(1.0, abs=1e-4)
    assert _cosine(answers[6][0], granite) == pytest.approx(1.0, abs=1e-4)


async def test_the_child_ends_when_idle_and_comes_back_with_the_next_text() -> None:
    embedder = UseEmbedder(idle_s=0.05)
    await embedder.embed(["a"])
    first = embedder.child_pid
    assert first is not None
    await _until(lambda: embedder.child_pid is None)
    await _until(lambda: not _is_alive(first))
    await embedder.embed(["b"])
    await embedder.close()


async def test_a_killed_child_is_replaced_within_the_call(embedder: UseEmbedder) -> None:
    [before] = await embedder.embed(["calculator"])
    first = embedder.child_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    [after] = await embedder.embed(["calculator"])
    assert embedder.child_pid != first
    assert _cosine(before, after) == pytest.approx(1.0, abs=1e-4)


async def test_a_child_that_hangs_is_given_up_and_the_next_call_has_a_new_one() -> None:
    embedder = UseEmbedder(idle_s=60, timeout_s=0.2)
    await embedder.embed(["a"])
    hanging = embedder.child_pid
    assert hanging is not None
    os.kill(hanging, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        await embedder.embed(["b"])
    assert not _is_alive(hanging)
    await embedder.embed(["c"])
    await embedder.close()


async def test_a_caller_that_gives_up_does_not_shift_the_answers_of_others(embedder: UseEmbedder) -> None:
    [expected] = await embedder.embed(["granite"])
    giving_up = asyncio.create_task(embedder.embed(["apple"] * 16))
    await asyncio.sleep(0)
    staying = asyncio.create_task(embedder.embed(["granite"]))
    await asyncio.sleep(0)
    giving_up.cancel()
    [got] = await staying
    assert _cosine(got, expected) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(asyncio.CancelledError):
        await giving_up


async def test_bounds_on_texts_and_waiting_callers(embedder: UseEmbedder) -> None:
    with pytest.raises(TooLarge):
        await embedder.embed(["x"] * (TEXTS_MAX + 1))
    long, cut = await embedder.embed(["word " * 3000, ("word " * 3000)[:TEXT_BYTES_MAX]])
    assert _cosine(long, cut) == pytest.approx(1.0, abs=1e-4)
    callers = [asyncio.create_task(embedder.embed([f"{n}"] * 16)) for n in range(JOBS_WAITING_MAX + 1)]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(answer) for answer in answers].count(Exhausted) == 1


async def test_close_ends_the_child_and_fails_who_waits() -> None:
    embedder = UseEmbedder(idle_s=60)
    await embedder.embed(["a"])
    pid = embedder.child_pid
    assert pid is not None
    waiting = asyncio.create_task(embedder.embed(["b"] * 200))
    await asyncio.sleep(0)
    await embedder.close()
    assert not _is_alive(pid)
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await embedder.embed(["c"])


async def test_the_child_dies_with_a_killed_parent() -> None:
    program = (
        "import asyncio, sys\n"
        "from services.search.embed import UseEmbedder\n"
        "async def main():\n"
        "    embedder = UseEmbedder(idle_s=60)\n"
        "    await embedder.embed(['a'])\n"
        "    sys.stderr.write(f'child {embedder.child_pid}\\n')\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert parent.stderr is not None
    try:
        line = await asyncio.wait_for(parent.stderr.readline(), 5)
    finally:
        parent.kill()
        await parent.communicate()
    child = int(line.split()[1])
    await _until(lambda: not _is_alive(child))


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_child_sees_none_of_our_environment(embedder: UseEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLWIRE_ADMIN_KEY", "k" * 32)
    await embedder.embed(["a"])
    assert embedder.child_pid is not None
    assert b"SKILLWIRE" not in _environment(embedder.child_pid)
