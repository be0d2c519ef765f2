"""A running service with the conformance pack, and the one who changes it when the suite asks for that."""

import io
import json
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.service import Service, get, running, wait_for_skills

HERE = Path(__file__).parent
POLL_S = 0.03


@contextmanager
def pack_served() -> Iterator[Service]:
    """The packages of `skills/` from a watched folder as owner `test`, those of `published/json` uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        skills = Path(folder) / "skills"
        shutil.copytree(HERE / "skills", skills)
        owners = json.dumps(["test", *(owner.name for owner in (HERE / "published").iterdir())])
        with running(
            skills, Path(folder) / "data", owner="test", scripts_allowed_owners=owners, workers_max="8"
        ) as service:
            wait_for_skills(service, len(list(skills.iterdir())))
            _publish(service, HERE / "published" / "json" / "schema")
            with _changing(service, skills / "simple" / "tools.json"):
                yield service


def publish_tasks(service: Service) -> None:
    """What the scenarios of tasks call. Later than the rest: the names of tools decide those of skills, of which
    two are then there twice, and another suite warns of that."""
    for package in (HERE / "published").glob("*/*"):
        if package.parent.name != "json":
            _publish(service, package)


def _publish(service: Service, package: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in package.rglob("*"):
            archive.write(path, path.relative_to(package))
    answer = httpx2.post(
        f"{service.url}/api/v1/skills",
        files={"file": ("skill.zip", buffer.getvalue())},
        data={"owner": package.parent.name},
    )
    assert answer.status_code == 201, answer.text


@contextmanager
def _changing(service: Service, declared: Path) -> Iterator[None]:
    """The suite calls a tool and expects lists to change: whoever watches the log of calls edits a file then."""
    ended = threading.Event()

    def watch() -> None:
        seen: set[str] = set()
        while not ended.wait(POLL_S):
            calls = get(service, "/invocations", skill="test/trigger", limit="500")["items"]
            assert isinstance(calls, list)
            fresh = {call["id"] for call in calls} - seen
            if fresh:
                seen |= fresh
                _edit(declared, len(seen))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _edit(declared: Path, number: int) -> None:
    content = json.loads(declared.read_text())
    for each in content["tools"]:
        each["description"] = f"{each['description'].partition(' (')[0]} (change {number})"
    declared.write_text(json.dumps(content))
