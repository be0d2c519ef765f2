"""Save a SKILL.md, and every kind of client knows: the reason Skillwire exists."""

import hashlib
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support import listeners, mcp_wire
from tests.support.service import Service, write_skill

pytestmark = pytest.mark.anyio


async def test_a_saved_skill_reaches_every_transport_with_one_id(service: Service, skills: Path) -> None:
    async with AsyncExitStack() as stack:
        sse = await stack.enter_async_context(listeners.sse(service.url))
        ws = await stack.enter_async_context(listeners.ws(service.url))
        modern, told_modern = await stack.enter_async_context(listeners.mcp_modern(service.url))
        legacy, told_legacy = await stack.enter_async_context(listeners.mcp_legacy(service.url))
        client = await stack.enter_async_context(httpx2.AsyncClient(base_url=service.url))

        folder = write_skill(skills, "tidy-notes", "Turns rough notes into minutes.")

        event = await sse.next(lambda event: event["data"].get("name") == "tidy-notes")
        assert event["kind"] == "skill.published"
        assert await ws.next(lambda other: other["data"].get("name") == "tidy-notes") == event
        assert await told_modern.next() == "ResourcesListChanged"
        assert await told_legacy.next() == "ResourceListChangedNotification"

        skill = (await client.get("/api/v1/skills/main/tidy-notes")).json()["data"]
        assert skill["digest"] == event["data"]["digest"]
        listed = (await mcp_wire.request(client, "skills/list"))["result"]["skills"]
        entry = next(entry for entry in listed if entry["frontmatter"]["name"] == "tidy-notes")
        content = (folder / "SKILL.md").read_bytes()
        assert [item["digest"] for item in entry["resources"]] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
        for mcp in (modern, legacy):
            uris = [resource.uri for resource in (await mcp.list_resources()).resources]
            assert entry["uri"] in uris
            assert (await mcp.read_resource(entry["uri"])).contents[0].text == content.decode()  # type: ignore[union-attr]

        found = (await client.post("/api/v1/search", json={"query": "write up meeting notes", "limit": 3})).json()
        assert "main/tidy-notes" in [hit["id"] for hit in found["data"]["items"]]


async def test_an_edit_is_a_new_version_and_the_old_one_can_still_be_read(service: Service, skills: Path) -> None:
    async with (
        listeners.ws(service.url) as events,
        httpx2.AsyncClient(base_url=service.url) as client,
        listeners.mcp_modern(service.url) as (mcp, _),
    ):
        write_skill(skills, "edited", body="First.")
        first = await events.next(lambda event: event["data"].get("name") == "edited")
        write_skill(skills, "edited", body="Second.")
        second = await events.next(lambda event: event["data"].get("name") == "edited")

        assert (first["data"]["version"], second["data"]["version"]) == (1, 2)
        assert second["prev"] == first["id"]
        old = await mcp.read_resource("skill://main/@1/edited/SKILL.md")
        new = await mcp.read_resource("skill://main/edited/SKILL.md")
        assert "First." in old.contents[0].text  # type: ignore[union-attr]
        assert "Second." in new.contents[0].text  # type: ignore[union-attr]
        versions = (await client.get("/api/v1/skills/main/edited/versions")).json()["data"]["items"]
        assert [(version["version"], version["active"]) for version in versions] == [(2, True), (1, False)]


async def test_an_event_stream_is_resumed_on_another_transport(service: Service, skills: Path) -> None:
    async with listeners.ws(service.url) as events:
        write_skill(skills, "hop", body="One.")
        seen = await events.next(lambda event: event["data"].get("name") == "hop")
    async with listeners.sse(service.url) as other:
        write_skill(skills, "hop", body="Two.")
        missed = [await other.next(lambda event: event["data"].get("name") == "hop")]
    async with listeners.sse(service.url, since=seen["id"]) as resumed:
        assert await resumed.next() == missed[0]


async def test_a_deleted_folder_takes_its_skill_out_of_service(service: Service, skills: Path) -> None:
    async with listeners.ws(service.url) as events, httpx2.AsyncClient(base_url=service.url) as client:
        folder = write_skill(skills, "short-lived")
        await events.next(lambda event: event["data"].get("name") == "short-lived")
        (folder / "SKILL.md").unlink()
        folder.rmdir()
        gone = await events.next(lambda event: event["data"].get("name") == "short-lived")
        assert gone["kind"] == "skill.deleted"
        listed = (await mcp_wire.request(client, "skills/list"))["result"]["skills"]
        assert "short-lived" not in [entry["frontmatter"]["name"] for entry in listed]


async def test_a_broken_skill_says_why_and_where_while_its_last_good_version_serves(
    service: Service, skills: Path
) -> None:
    async with listeners.ws(service.url) as events, httpx2.AsyncClient(base_url=service.url) as client:
        folder = write_skill(skills, "fragile")
        await events.next(lambda event: event["data"].get("name") == "fragile")
        (folder / "SKILL.md").write_text("---\nname: fragile\ndescription: a: b: c\n---\n")
        event = await events.next(lambda event: event["data"].get("name") == "fragile")
        assert event["kind"] == "skill.quarantined"
        assert event["data"]["active_version"] == 1
        sources = (await client.get("/api/v1/sources")).json()["data"]["items"]
        entry = next(entry for entry in sources if entry["path"] == "fragile")
        assert entry["served"] is True
        assert entry["diagnostics"][0]["line"] == 3
