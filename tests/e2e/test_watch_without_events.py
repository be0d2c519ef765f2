"""A system that has no more file watches to give, as desktops with several editors run out of them."""

import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.support.service import get, running_within, wait_for_skills, write_skill

# A user namespace has limits of its own.
NO_EVENTS = ("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_inotify_$0 && exec "$@"')


def _can_be_limited() -> bool:
    try:
        return subprocess.run([*NO_EVENTS, "instances", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _can_be_limited(), reason="no user namespaces here")
@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_without_events_of_the_system_the_folder_is_polled(tmp_path: Path, limit: str) -> None:
    skills = tmp_path / "skills"
    write_skill(skills, "one")
    before = (*NO_EVENTS, limit)
    with running_within(before, skills, tmp_path / "data", redis_url="off", embedder="off") as service:
        wait_for_skills(service, 1)
        write_skill(skills, "two")
        wait_for_skills(service, 2)
        watcher = httpx2.get(f"{service.url}/health", timeout=5).json()["checks"]["watcher"]
        assert watcher["status"] == "degraded"
        assert f"{skills} is polled: " in watcher["detail"]
        assert get(service, "/skills/main/two")["version"] == 1
        log = "".join(service.log)
        assert "Traceback" not in log
        assert log.count("the folder is polled") == 1
