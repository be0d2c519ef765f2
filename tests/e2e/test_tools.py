"""Tools run warm, in a sandbox, and leave a record of exactly what ran."""

from typing import Any

import httpx2
import pytest

from tests.support import listeners
from tests.support.service import Service, running, write_skill

pytestmark = pytest.mark.anyio


async def test_two_calls_run_in_one_worker_and_are_logged_with_version_and_digest(service: Service) -> None:
    async with httpx2.AsyncClient(base_url=service.url) as client:
        path = "/api/v1/tools/main_calculator_evaluate/call"
        first, second = [
            (await client.post(path, json={"arguments": {"expression": text}})).json()["data"]
            for text in ("2 * 21", "0.1 + 0.2")
        ]
        assert first["worker_pid"] == second["worker_pid"]
        assert (first["warm"], second["warm"]) == (False, True)
        skill = (await client.get("/api/v1/skills/main/calculator")).json()["data"]
        # The log is written in batches, a moment after the answer.
        logged = (await listeners.eventually(lambda: _invocations(client, "main/calculator", 2)))[0]
        assert (logged["digest"], logged["version"]) == (skill["digest"], skill["version"])
        assert (logged["caller"], logged["transport"], logged["ok"]) == ("local", "rest", True)
        assert "0.1 + 0.2" in logged["arguments"]
        second_of_it = f"{logged['at'][:19]}Z"
        for bound, is_found in (("since", True), ("until", False)):
            asked = await client.get("/api/v1/invocations", params={bound: second_of_it, "skill": "main/calculator"})
            assert (logged in asked.json()["data"]["items"]) is is_found


async def test_the_same_tool_answers_over_mcp_and_rpc_and_wrong_arguments_say_what_is_wrong(service: Service) -> None:
    async with listeners.mcp_modern(service.url) as (mcp, _):
        right = await mcp.call_tool("main_hello-world_greet", {"name": "Ada"})
        assert right.is_error is False
        assert "Ada" in str(right.structured_content)
        wrong = await mcp.call_tool("call_tool", {"tool": "main_hello-world_greet", "arguments": {"nom": "Ada"}})
        assert wrong.is_error is True
        assert "name" in wrong.content[0].text  # type: ignore[union-attr]


async def test_a_script_is_not_run_for_an_owner_the_operator_has_not_allowed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("strangers")
    skill = write_skill(folder / "skills", "stranger")
    (skill / "run.py").write_text("def run(arguments):\n    return {}\n")
    (skill / "tools.json").write_text(
        '{"tools": [{"name": "run", "description": "d", "inputSchema": {"type": "object"},'
        ' "command": ["python", "run.py:run"]}]}'
    )
    with running(folder / "skills", folder / "data", owner="guests") as service:
        async with httpx2.AsyncClient(base_url=service.url) as client:
            # The first scan may still be under way.
            answer = await listeners.eventually(lambda: _unless_404(client, "/api/v1/tools/guests_stranger_run/call"))
            assert answer.status_code == 403
            assert answer.json()["code"] == "scripts_not_allowed"
            assert "SKILLWIRE_SCRIPTS_ALLOWED_OWNERS" in answer.json()["detail"]


async def _unless_404(client: httpx2.AsyncClient, path: str) -> httpx2.Response | None:
    answer = await client.post(path, json={})
    return None if answer.status_code == 404 else answer


async def _invocations(client: httpx2.AsyncClient, skill: str, count: int) -> list[dict[str, Any]] | None:
    answer = await client.get("/api/v1/invocations", params={"skill": skill})
    items: list[dict[str, Any]] = answer.json()["data"]["items"]
    return items if len(items) >= count else None
