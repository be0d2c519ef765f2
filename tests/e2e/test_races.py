"""Two replicas of one store that publish the same skill at once; `tests/bench` does it for longer."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx2
import pytest

from tests.support.packages import skill_md, zip_of
from tests.support.replicas import two_replicas

SKILL = "/api/v1/skills/main/raced"


def race_over_http(tmp_path: Path, url: str, rounds: int, *, conditional: bool) -> None:
    """Fails unless every answered version is there under its own number, and no other."""
    with ExitStack() as stack:
        replicas = two_replicas(stack, url, tmp_path)
        clients = [stack.enter_context(httpx2.Client(base_url=replica.url, timeout=90)) for replica in replicas]
        threads = stack.enter_context(ThreadPoolExecutor(len(clients)))
        start = Barrier(len(clients), timeout=90)

        def publish(number: int, round_: int, headers: dict[str, str]) -> tuple[int, Any]:
            package = zip_of({"SKILL.md": skill_md("raced", body=f"Round {round_} of {number}.")})
            start.wait()
            answer = clients[number].post("/api/v1/skills", files={"file": ("a.zip", package)}, headers=headers)
            return answer.status_code, answer.json()

        published: dict[int, str] = {}
        headers: dict[str, str] = {}
        for round_ in range(rounds):
            racing = [threads.submit(publish, number, round_, headers) for number in range(len(clients))]
            answers = [each.result() for each in racing]
            won = sorted((body["data"] for status, body in answers if status == 201), key=lambda data: data["version"])
            statuses = sorted(status for status, _ in answers)
            assert statuses == ([201, 409] if headers else [201, 201]), answers
            assert [data["version"] for data in won] == [len(published) + n for n in range(1, len(won) + 1)]
            published |= {data["version"]: data["digest"] for data in won}
            if conditional:
                headers = {"if-match": f'"{won[-1]["digest"]}"'}
        for client in clients:
            assert everything(client) == published


def everything(client: httpx2.Client) -> dict[int, str]:
    """Digest by number, as this replica lists them."""
    answer = client.get(f"{SKILL}/versions", headers={"x-consistency": "linearizable"})
    listed = answer.raise_for_status().json()["data"]["items"]
    numbers = [version["version"] for version in listed]
    assert numbers == list(range(len(numbers), 0, -1))
    return {version["version"]: version["digest"] for version in listed}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "if-match"])
def test_of_two_replicas_that_publish_at_once_no_version_is_lost(
    tmp_path: Path, store_url: str, conditional: bool
) -> None:
    race_over_http(tmp_path, store_url, 5, conditional=conditional)
