"""What two replicas of one store know is there after both have ended, one of them by SIGKILL."""

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import listeners
from tests.support.packages import skill_md, tool, tools_json, zip_of
from tests.support.replicas import two_replicas
from tests.support.service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

SKILL = "/api/v1/skills/main/counted"
CALL = "/api/v1/tools/main_counted_run/call"
SCRIPT = b"def main(arguments):\n    return {'half': 1 / arguments['by']}\n"
SCHEMA = {"type": "object", "properties": {"by": {"type": "number"}}, "required": ["by"]}


def package(body: str) -> bytes:
    tools = tools_json(tool(inputSchema=SCHEMA))
    return zip_of({"SKILL.md": skill_md("counted", body=body), "tools.json": tools, "scripts/run.py": SCRIPT})


async def asked(service: Service, path: str) -> Any:
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as client:
        answer = await client.get(path, headers={"x-consistency": "linearizable"})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def told(service: Service, path: str, status: int, **request: Any) -> Any:
    async with httpx2.AsyncClient(base_url=service.url, timeout=20) as client:
        answer = await client.post(path, **request)
    assert answer.status_code == status, answer.text
    return answer.json().get("data")


async def publish(service: Service, body: str) -> int:
    made = await told(service, "/api/v1/skills", 201, files={"file": ("a.zip", package(body))})
    return int(made["version"])


async def known(service: Service) -> dict[str, Any]:
    """All that must survive: the skill, its versions, its counters, its log."""
    ends = ("", "/versions", "/usage", "/logs?limit=100")
    return {end: await asked(service, f"{SKILL}{end}") for end in ends}


async def counted(service: Service, calls: int) -> bool:
    return bool((await asked(service, f"{SKILL}/usage"))["calls"] == calls)


async def test_a_rollback_and_the_counters_survive_the_end_of_all_replicas(tmp_path: Path, store_url: str) -> None:
    with ExitStack() as stack:
        one, other = two_replicas(stack, store_url, tmp_path)
        for number in range(1, 10):
            assert await publish((one, other)[number % 2], f"text {number}") == number
        await told(other, f"{SKILL}/rollback", 200, json={"version": 2})
        assert (await asked(one, SKILL))["version"] == 2
        for service in (one, other, one):
            assert (await told(service, CALL, 200, json={"arguments": {"by": 2}}))["version"] == 2
        await told(other, CALL, 502, json={"arguments": {"by": 0}})
        # A call is in the log a moment after its answer; a replica that is killed before that has lost it.
        assert await listeners.eventually(lambda: counted(one, 4))
        before = await known(one)
        assert (before["/usage"]["calls"], before["/usage"]["failures"]) == (4, 1)
        assert before["/usage"]["last_at"]
        one.stop(signal.SIGKILL)
        assert other.stop(signal.SIGTERM) == 0
    with ExitStack() as stack:
        one, other = two_replicas(stack, store_url, tmp_path)
        assert await known(one) == before
        assert await known(other) == before
        assert (await told(one, CALL, 200, json={"arguments": {"by": 4}}))["version"] == 2
        assert await listeners.eventually(lambda: counted(other, 5))

        assert await publish(other, "text 10") == 10
        assert (await asked(one, SKILL))["version"] == 10
        numbers = [version["version"] for version in (await asked(one, f"{SKILL}/versions"))["items"]]
        assert numbers == list(range(10, 0, -1)), "the tenth after the ninth, not after the first"
