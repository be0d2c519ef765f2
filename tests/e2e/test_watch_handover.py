"""The replica that scans is killed: another one takes the folder over, and nothing saved meanwhile is lost."""

import signal
import time
from pathlib import Path

import pytest

from tests.support.service import Service, get, running, wait_for_skills, write_skill

# The lease of a killed replica runs out after 10 s; whoever waits for it asks every 3 s.
HANDOVER_S = 25.0
PLAIN = {"redis_url": "off", "embedder": "off"}


@pytest.mark.timeout(120)
def test_another_replica_takes_the_folder_over_and_catches_up(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    write_skill(skills, "edited")
    write_skill(skills, "deleted")
    with running(skills, data, **PLAIN) as first, running(skills, data, **PLAIN) as second:
        wait_for_skills(second, 2)
        first.stop(signal.SIGKILL)
        write_skill(skills, "edited", "Edited while nobody scanned.")
        (skills / "deleted" / "SKILL.md").unlink()
        write_skill(skills, "added")
        until = time.monotonic() + HANDOVER_S
        while _served(second) != {"edited": "Edited while nobody scanned.", "added": "A skill for tests."}:
            assert time.monotonic() < until, _served(second)
            time.sleep(0.1)
        write_skill(skills, "edited", "Edited after that.")
        until = time.monotonic() + HANDOVER_S
        while _served(second)["edited"] != "Edited after that.":
            assert time.monotonic() < until
            time.sleep(0.1)
        versions = get(second, "/skills/main/edited/versions")["items"]
        assert isinstance(versions, list)
        assert [version["version"] for version in versions] == [3, 2, 1]


def _served(service: Service) -> dict[str, str]:
    items = get(service, "/skills", status="active")["items"]
    assert isinstance(items, list)
    return {item["name"]: item["description"] for item in items}
