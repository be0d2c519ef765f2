"""A replica answers before MCP's SDK is there, and without it what can be answered without it."""

import asyncio
import os
from pathlib import Path

import httpx2
import pytest

from tests.support import mcp_wire
from tests.support.service import running, write_skill

pytestmark = pytest.mark.anyio

# In place of the SDK's types: they come once somebody has written to the pipe.
HELD = """
import sys
with open({pipe!r}) as pipe:
    pipe.read()
sys.path.remove({folder!r})
del sys.modules["mcp_types"]
import mcp_types
"""


def shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What the service is started with finds this as `mcp_types`."""
    folder = tmp_path / "shadow"
    folder.mkdir()
    (folder / "mcp_types.py").write_text(text.format(pipe=str(tmp_path / "pipe"), folder=str(folder)))
    monkeypatch.setenv("PYTHONPATH", str(folder))


async def test_a_request_for_the_sdk_waits_until_it_is_imported_and_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    shadowed(tmp_path, monkeypatch, HELD)
    write_skill(tmp_path / "skills", "calculator")
    with running(tmp_path / "skills", tmp_path / "data") as service:
        async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
            waiting = asyncio.create_task(mcp_wire.request(client, "tools/list"))
            try:
                assert (await mcp_wire.request(client, "skills/list"))["result"]["resultType"] == "complete"
                call = {"name": "search_skills", "arguments": {"query": "add"}}
                assert (await mcp_wire.request(client, "tools/call", call))["result"]["isError"] is False
                assert (await client.get("/api/v1/skills")).status_code == 200
                assert not waiting.done()
            finally:
                (tmp_path / "pipe").write_text("go on")
            assert len((await waiting)["result"]["tools"]) > 5


async def test_without_the_sdk_the_rest_is_served_and_health_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadowed(tmp_path, monkeypatch, "raise ImportError('no such library')")
    write_skill(tmp_path / "skills", "calculator")
    with running(tmp_path / "skills", tmp_path / "data") as service:
        async with httpx2.AsyncClient(base_url=service.url, timeout=30) as client:
            assert (await client.post(**mcp_wire.composed("tools/list"))).status_code == 500
            assert "result" in await mcp_wire.request(client, "skills/list")
            assert any(notice.startswith("MCP: ") for notice in (await client.get("/health")).json()["notices"])
        assert any("the SDK of MCP cannot be used" in line for line in service.log)
        assert service.stop() == 0
