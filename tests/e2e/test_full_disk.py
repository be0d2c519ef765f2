"""A service whose disk has no room left: every write says so, every read goes on, room again is enough."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.chaos import small_disk
from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, get, running

DISK_KB = 16 * 1024
# What the ballast leaves, and a package that is larger.
ROOM_KB, PACKAGE_KB = 1024, 4 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK_KB) as at:
        yield at


def unfinished(disk: Path) -> list[Path]:
    """A blob of the refused package that had room is whole, and the sweeper's to remove."""
    return [file for file in (disk / "data" / "blobs").glob("*/*") if len(file.name) != 64]


def publish(service: Service, name: str, size_kb: int) -> httpx2.Response:
    data = zip_of({"SKILL.md": skill_md(name), "asset.bin": os.urandom(size_kb * 1024)})
    return httpx2.post(f"{service.url}/api/v1/skills", files={"file": ("a.zip", data)}, timeout=10)


def test_a_full_disk_is_said_to_be_full_and_room_again_needs_no_restart(tmp_path: Path, disk: Path) -> None:
    (tmp_path / "skills").mkdir()
    with running(tmp_path / "skills", disk / "data", watch="off") as service:
        assert publish(service, "before", 1).status_code == 201
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - ROOM_KB * 1024))

        refused = publish(service, "large", PACKAGE_KB)
        assert (refused.status_code, refused.json()["code"], refused.json()["success"]) == (507, "disk_full", False)
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) > 0
        assert str(disk) not in refused.text
        assert httpx2.get(f"{service.url}/api/v1/skills/main/large", timeout=5).status_code == 404
        assert not unfinished(disk)

        assert get(service, "/skills/main/before")["version"] == 1
        file = httpx2.get(f"{service.url}/api/v1/skills/main/before/files/SKILL.md", timeout=5)
        assert file.content == skill_md("before")
        assert httpx2.get(f"{service.url}/readyz", timeout=5).status_code == 200

        ballast.unlink()
        made = publish(service, "large", PACKAGE_KB)
        assert (made.status_code, made.json()["data"]["version"]) == (201, 1)
        assert get(service, "/skills/main/large")["status"] == "active"
