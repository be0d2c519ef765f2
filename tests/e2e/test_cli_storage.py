"""The commands for whoever looks after the storage: migrate, sweep."""

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, command, environment, get, running, skillwire

OFF = {"embedder": "off", "redis_url": "off"}
MIGRATED = (
    "migrated to schema 2: usage, pins and what a restore brings back\n"
    "migrated to schema 3: runs, and documents that all replicas share\n"
    "migrated to schema 4: the audit log\n"
)


def test_a_database_of_an_older_version_is_migrated_and_then_served(tmp_path: Path, old_url: str) -> None:
    for _ in range(2):
        planned = skillwire("migrate", "--dry-run", database_url=old_url)
        assert (planned.returncode, planned.stdout) == (0, MIGRATED.replace("migrated", "would migrate"))
    if old_url.startswith("postgresql"):
        refused = skillwire("serve", "--port", "0", "--data", tmp_path / "data", database_url=old_url, **OFF)
        assert refused.returncode != 0
        assert "run `skillwire migrate`" in refused.stderr

    done = skillwire("migrate", database_url=old_url)
    again = skillwire("migrate", database_url=old_url)

    assert (done.returncode, done.stdout) == (0, MIGRATED)
    assert (again.returncode, again.stdout) == (0, "schema 4 is up to date\n")
    with running(tmp_path / "none", tmp_path / "data", database_url=old_url, **OFF) as service:
        assert get(service, "/skills/main/alpha")["version"] == 2
        assert get(service, "/skills/main/alpha/usage")["calls"] == 5


def test_migrate_makes_the_tables_and_says_why_it_cannot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/store.db"
    assert skillwire("migrate", "--dry-run", database_url=url).stdout == "there are no tables: schema 4 would be made\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert skillwire("migrate", database_url=url).stdout == "there are no tables: schema 4 was made\n"
    nowhere = skillwire("migrate", database_url=f"postgresql://postgres@/none?host={tmp_path}")
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith("Error: the database does not answer")
    assert "postgresql://" not in nowhere.stderr


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "no AWS credentials were found; set AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "none"}, "profile (none) could not be found"),
        ({"AWS_ACCESS_KEY_ID": "half"}, "missing: AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_without_aws_credentials_it_is_said_what_to_set(tmp_path: Path, more: dict[str, str], reason: str) -> None:
    kept = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
    nowhere = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    done = subprocess.run(
        command("init-storage"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**kept, **nowhere, **more},
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_beside_a_running_service_takes_what_no_version_names_and_is_old(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path / "none", data, **OFF) as service:
        upload(service, "one")
        parts = [unjoined(service, text) for text in (b"old", b"young")]
        named = blobs(data) - set(parts)
        assert len(named) == 1
        for sha256 in (*named, parts[0]):
            age(data, sha256, hours=25)

        swept = skillwire("sweep", data_dir=str(data), **OFF)

        assert (swept.returncode, swept.stdout) == (
            0,
            "removed 1 blobs, 3 bytes, that nothing has used for 24 h\n",
        ), swept.stderr
        assert blobs(data) == {*named, parts[1]}
        age(data, parts[1], hours=2)
        assert "removed 1 blobs" in skillwire("sweep", "--older-than-h", "1", data_dir=str(data), **OFF).stdout
        assert skillwire("sweep", "--older-than-h", "0", data_dir=str(data)).returncode == 2
        file = httpx2.get(f"{service.url}/api/v1/skills/main/swept/files/SKILL.md", timeout=10)
        assert file.content == skill_md("swept", body="one")


def upload(service: Service, body: str) -> None:
    package = zip_of({"SKILL.md": skill_md("swept", body=body)})
    answer = httpx2.post(f"{service.url}/api/v1/skills", files={"file": ("a.zip", package)}, timeout=10)
    assert answer.status_code == 201, json.dumps(answer.json())


def unjoined(service: Service, part: bytes) -> str:
    """The name of a part of an upload that is never completed."""
    sha256 = hashlib.sha256(part).hexdigest()
    httpx2.put(f"{service.url}/api/v1/uploads/{sha256}", content=part, timeout=10).raise_for_status()
    return sha256


def blobs(data: Path) -> set[str]:
    return {path.name for path in (data / "blobs").rglob("*") if path.is_file()}


def age(data: Path, sha256: str, *, hours: float) -> None:
    at = time.time_ns() / 1e9 - hours * 3600
    os.utime(data / "blobs" / sha256[:2] / sha256, (at, at))
