"""Two replicas that list one of two tools: which, the database says and the log tells."""

import sqlite3
from pathlib import Path

import pytest
from mcp.client import Client

from gateway.mcp.meta_tools import META_TOOLS
from tests.support.listeners import eventually, mcp_modern
from tests.support.packages import tool, tools_json
from tests.support.service import get, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio


async def own_tools(client: Client) -> list[str]:
    return [each.name for each in (await client.list_tools()).tools if each.name not in META_TOOLS]


async def test_a_ranking_that_one_replica_makes_is_listed_by_all_and_told_to_their_clients(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    folder = write_skill(skills, "two")
    (folder / "run.py").write_text("def run(arguments):\n    return 1\n")
    declared = [tool(name, command=["python", "run.py:run"]) for name in ("a", "b")]
    (folder / "tools.json").write_bytes(tools_json(*declared))
    with running(skills, data, tools_list_limit="1") as one:
        wait_for_skills(one, 1)
        async with mcp_modern(one.url) as (client, told):
            assert await own_tools(client) == ["main_two_a"]
            for _ in range(3):
                await client.call_tool("main_two_b", {})

            async def are_logged() -> bool:
                items = get(one, "/invocations")["items"]
                assert isinstance(items, list)
                return len(items) == 3

            await eventually(are_logged)
            told.clear()
            # As if an hour had gone by: whoever comes next may count.
            with sqlite3.connect(data / "skillwire.db") as database:
                assert database.execute("DELETE FROM leases WHERE name = 'tool ranking'").rowcount == 1
            database.close()
            with running(skills, data, tools_list_limit="1") as other:
                await told.next(lambda heard: heard == "ToolsListChanged")
                assert await own_tools(client) == ["main_two_b"], "from the client's own cache no more"
                async with Client(f"{other.url}/mcp", mode="auto") as elsewhere:
                    assert await own_tools(elsewhere) == ["main_two_b"]
