"""Replicas that share a PostgreSQL server and no disk."""

import signal
from pathlib import Path

import httpx2
import pytest

from tests.support import listeners
from tests.support.packages import skill_md, zip_of
from tests.support.service import get, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio


async def test_replicas_with_folders_of_their_own_tell_each_others_clients_and_read_each_others_files(
    tmp_path: Path, postgres_url: str
) -> None:
    skills = tmp_path / "skills"
    write_skill(skills, "one")
    with (
        running(skills, tmp_path / "here", database_url=postgres_url) as first,
        running(skills, tmp_path / "there", database_url=postgres_url, watch="off") as second,
    ):
        wait_for_skills(second, 1)
        async with listeners.ws(first.url) as here, listeners.sse(second.url) as there:
            write_skill(skills, "two", body="Written here.")
            assert await here.next() == await there.next()
            assert get(first, "/skills/main/two") == get(second, "/skills/main/two")
            read = httpx2.get(f"{second.url}/api/v1/skills/main/two/files/SKILL.md", timeout=5)
            assert read.content == (skills / "two" / "SKILL.md").read_bytes()

            uploaded = skill_md("three", body="Sent there.")
            httpx2.post(
                f"{second.url}/api/v1/skills",
                files={"file": ("three.zip", zip_of({"three/SKILL.md": uploaded}), "application/zip")},
                timeout=5,
            ).raise_for_status()
            told = await here.next()
            assert (told, told["data"]["id"]) == (await there.next(), "main/three")
            assert httpx2.get(f"{first.url}/api/v1/skills/main/three/files/SKILL.md", timeout=5).content == uploaded
        second.stop(signal.SIGKILL)
        write_skill(skills, "one", body="After the other one was killed.")
        async with listeners.sse(first.url, topics="skills", since=told["id"]) as resumed:
            assert (await resumed.next())["data"]["version"] == 2
    kept = {path.name for folder in ("here", "there") for path in (tmp_path / folder).rglob("*")}
    assert not {"blobs", "skillwire.db"} & kept, "all of it is in the database"


async def test_a_replica_that_restarts_finds_everything_on_the_server(tmp_path: Path, postgres_url: str) -> None:
    skills = tmp_path / "skills"
    write_skill(skills, "one")
    with running(skills, tmp_path / "first", database_url=postgres_url) as service:
        wait_for_skills(service, 1)
        before = get(service, "/skills/main/one")
        service.stop(signal.SIGKILL)
    with running(skills, tmp_path / "second", database_url=postgres_url, watch="off") as service:
        assert get(service, "/skills/main/one") == before
        assert "postgres@" not in "".join(service.log)
