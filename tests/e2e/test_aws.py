"""Replicas that share DynamoDB and S3, and nothing else."""

import asyncio
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.support import listeners
from tests.support.aws import AwsServer, place_of
from tests.support.faulty_aws import Fault, faulty
from tests.support.packages import skill_md, zip_of
from tests.support.replicas import settings_on
from tests.support.service import environment, get, running, wait_for_skills, write_skill
from tests.support.stores import open_blobs, open_store

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def test_replicas_tell_each_others_clients_read_each_others_files_and_count_over_restarts(
    tmp_path: Path, aws_url: str
) -> None:
    skills, shared = tmp_path / "skills", settings_on(aws_url)
    write_skill(skills, "one")
    with (
        running(skills, tmp_path / "here", **shared) as first,
        running(skills, tmp_path / "there", **shared, watch="off") as second,
    ):
        wait_for_skills(second, 1)
        async with listeners.ws(first.url) as here, listeners.sse(second.url) as there:
            uploaded = skill_md("three", body="Sent there.")
            httpx2.post(
                f"{second.url}/api/v1/skills",
                files={"file": ("three.zip", zip_of({"three/SKILL.md": uploaded}), "application/zip")},
                timeout=10,
            ).raise_for_status()
            told = await here.next()
            assert (told, told["data"]["id"]) == (await there.next(), "main/three")
        read = httpx2.get(f"{first.url}/api/v1/skills/main/three/files/SKILL.md", timeout=10)
        assert read.content == uploaded
        assert httpx2.get(f"{first.url}/health", timeout=10).json()["checks"]["database"]["status"] == "ok"
        before = get(first, "/skills/main/three")
        second.stop(signal.SIGKILL)
        first.stop(signal.SIGKILL)
    with running(skills, tmp_path / "third", **shared, watch="off") as service:
        assert get(service, "/skills/main/three") == before
        assert service.stop() == 0
    kept = {path.name for folder in ("here", "there", "third") for path in (tmp_path / folder).rglob("*")}
    assert not {"blobs", "skillwire.db"} & kept, "all of it is in AWS"

    store = await open_store(aws_url)
    blobs = await open_blobs(store, aws_url, tmp_path)
    try:
        place = place_of(aws_url)
        latest = await blobs.s3.read(5, Bucket=place.bucket, Key="skills/main/three/latest.json")  # type: ignore[union-attr]
        assert json.loads(latest)["version"] == "v1"
        copy = await blobs.s3.read(5, Bucket=place.bucket, Key="skills/main/three/v1/SKILL.md")  # type: ignore[union-attr]
        assert copy == uploaded
    finally:
        await blobs.close()
        await store.close()


async def test_health_says_that_s3_does_not_answer_and_that_it_does_again(
    tmp_path: Path, aws: AwsServer, aws_url: str
) -> None:
    async with faulty(aws.port) as s3, httpx2.AsyncClient(timeout=10) as client:
        apart = settings_on(aws_url) | {"s3_endpoint_url": s3.url}
        with ThreadPoolExecutor(1) as starter, ExitStack() as stack:
            opening = running(tmp_path, tmp_path / "data", **apart, watch="off")
            # On a thread, because the proxy is served by this loop.
            service = await asyncio.get_running_loop().run_in_executor(starter, stack.enter_context, opening)

            async def blobs_are(status: str) -> bool:
                health = (await client.get(f"{service.url}/health")).json()
                assert health["checks"]["database"]["status"] == "ok"
                return bool(health["checks"]["blobs"]["status"] == status)

            assert await blobs_are("ok")
            steps: tuple[tuple[Fault, str], ...] = (("error", "degraded"), ("", "ok"))
            for fault, status in steps:
                s3.always(fault)
                async with asyncio.timeout(30):  # the last look may be `pulse.FRESH_S` old
                    while not await blobs_are(status):  # noqa: ASYNC110  # nothing announces it
                        await asyncio.sleep(0.2)
                assert (await client.get(f"{service.url}/readyz")).status_code == 200


def test_the_script_for_an_emulator_makes_what_a_replica_needs_and_can_be_repeated(
    tmp_path: Path, aws: AwsServer
) -> None:
    place = place_of(f"aws+{aws.url}/scripted")
    known = {
        "S3_SKILLS_BUCKET": place.bucket,
        "DYNAMODB_SKILLS_TABLE": place.skills_table,
        "DYNAMODB_INVOCATION_LOGS_TABLE": place.invocations_table,
        "PYTHON": sys.executable,
    }
    said = []
    for _ in range(2):
        script = [str(ROOT / "scripts" / "init-local-storage.sh"), aws.url]
        done = subprocess.run(
            script, capture_output=True, text=True, timeout=60, check=False, env=environment() | known
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert len(said[0]) == 7, "five tables and a bucket, and that it is ready"
    assert said[1] == ["the storage is ready"]
    with running(tmp_path, tmp_path / "data", **settings_on(f"aws+{aws.url}/scripted"), watch="off") as service:
        assert get(service, "/skills")["items"] == []


async def test_a_replica_without_tables_says_what_to_do(tmp_path: Path, aws_url: str) -> None:
    nowhere = settings_on(aws_url) | {"dynamodb_skills_table": "nowhere"}
    with pytest.raises(AssertionError, match="skillwire init-storage"), running(tmp_path, tmp_path / "data", **nowhere):
        pass
