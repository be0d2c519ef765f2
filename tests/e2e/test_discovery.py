"""What installers of agents read: the index, its artifacts, and the public `skills` command line itself."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.listeners import eventually
from tests.support.packages import skill_md, zip_of
from tests.support.restored import back_up, restore
from tests.support.service import Service, running, write_skill

CLI = Path(__file__).parents[1] / "conformance" / "node_modules" / "skills" / "bin" / "cli.mjs"
INDEX = "/.well-known/agent-skills/index.json"


def index(service: Service, base: str = "") -> dict[str, dict[str, Any]]:
    body = httpx2.get(f"{service.url}{base}{INDEX}", timeout=30).json()
    assert body["$schema"].endswith("/discovery/0.2.0/schema.json")
    return {entry["name"]: entry for entry in body["skills"]}


def test_every_artifact_has_the_digest_that_the_index_names(service: Service, skills: Path) -> None:
    found = index(service)
    assert {"hello-world", "calculator"} <= found.keys()
    for entry in found.values():
        answer = httpx2.get(f"{service.url}{entry['url']}", timeout=30)
        assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == entry["digest"]
    calculator = found["calculator"]
    assert (calculator["type"], calculator["owner"], calculator["version"]) == ("archive", "main", 1)
    packed = httpx2.get(f"{service.url}{calculator['url']}", timeout=30).content
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        file = archive.extractfile("SKILL.md")
        assert file is not None
        assert file.read() == (skills / "calculator" / "SKILL.md").read_bytes()


def test_an_index_is_scoped_by_owner_and_name_and_found_where_clients_of_before_look(service: Service) -> None:
    assert index(service, "/main").keys() == index(service).keys()
    assert index(service, "/nobody") == {}
    assert index(service, "/main/calculator").keys() == {"calculator"}
    old = httpx2.get(f"{service.url}/.well-known/skills/index.json", timeout=30)
    assert old.content == httpx2.get(f"{service.url}{INDEX}", timeout=30).content


def lane_answers(service: Service) -> float:
    text = httpx2.get(f"{service.url}/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("skillwire_lane_answers_total"))


@pytest.mark.parametrize("base", ["", "/main", "/main/calculator", "/nobody"])
@pytest.mark.parametrize("has_it", [False, True])
def test_an_index_that_is_kept_is_answered_as_the_route_does(service: Service, base: str, has_it: bool) -> None:
    url = f"{service.url}{base}{INDEX}"
    etag = httpx2.get(url, timeout=30).headers["etag"]
    headers = {"if-none-match": f'"other", {etag}' if has_it else ""}
    for _ in range(10):
        before = lane_answers(service)
        kept = httpx2.get(url, headers=headers, timeout=30)
        if lane_answers(service) > before:  # else the log had not been read for half a second
            break
    else:
        raise AssertionError("it was never answered at once")
    routed = httpx2.get(url, headers={**headers, "x-consistency": "bounded"}, timeout=30)
    assert lane_answers(service) == before + 1
    assert (kept.status_code, kept.content) == (routed.status_code, routed.content)
    assert kept.status_code == (304 if has_it else 200)
    changing = {"date", "x-request-id"}
    assert {name: value for name, value in kept.headers.items() if name not in changing} == {
        name: value for name, value in routed.headers.items() if name not in changing
    }


@pytest.mark.parametrize("path", ["//.well-known/agent-skills/index.json", f"/a/b/c{INDEX}", f"/a/.well-known{INDEX}x"])
def test_a_path_that_is_no_index_is_not_found(service: Service, path: str) -> None:
    assert httpx2.get(f"{service.url}{path}", timeout=30).status_code == 404


def test_what_a_client_has_is_not_sent_again_until_it_changes(service: Service, skills: Path) -> None:
    first = httpx2.get(f"{service.url}{INDEX}", timeout=30)
    again = httpx2.get(f"{service.url}{INDEX}", headers={"if-none-match": first.headers["etag"]}, timeout=30)
    assert (again.status_code, again.content) == (304, b"")
    write_skill(skills, "found-by-all")

    async def changed() -> bool:
        return "found-by-all" in index(service)

    async def waited() -> None:
        await eventually(changed)

    asyncio.run(waited())
    entry = index(service)["found-by-all"]
    assert (entry["type"], entry["url"].rpartition("/")[2]) == ("skill-md", "SKILL.md")
    assert httpx2.get(f"{service.url}{INDEX}", headers={"if-none-match": first.headers["etag"]}).status_code == 200


def test_head_is_answered_as_get_without_the_body(service: Service) -> None:
    artifacts = [entry["url"] for entry in index(service).values()]
    assert {url.rpartition("/")[2] for url in artifacts} == {"skill.tar.gz", "SKILL.md"}
    for path in (INDEX, f"/main{INDEX}", f"/main/calculator{INDEX}", "/.well-known/skills/index.json", *artifacts):
        got = httpx2.get(f"{service.url}{path}", timeout=30)
        head = httpx2.head(f"{service.url}{path}", timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-length", "content-type", "cache-control"):
            assert head.headers[name] == got.headers[name], (path, name)


def test_a_client_that_has_any_copy_is_answered_304(service: Service) -> None:
    for path in (INDEX, next(iter(index(service).values()))["url"]):
        for more in ({}, {"x-consistency": "bounded"}):  # at once, and by the route
            answer = httpx2.get(f"{service.url}{path}", headers={"if-none-match": "*", **more}, timeout=30)
            assert (answer.status_code, answer.content) == (304, b"")


def test_an_unknown_version_is_not_found(service: Service) -> None:
    for path in ("main/calculator/99/skill.tar.gz", "main/none/1/SKILL.md", "main/calculator/0/SKILL.md"):
        answer = httpx2.get(f"{service.url}/.well-known/agent-skills/{path}", timeout=30)
        assert answer.status_code in (404, 422), path


def publish(service: Service, description: str) -> int:
    zipped = zip_of({"SKILL.md": skill_md("one", description)})
    answer = httpx2.post(f"{service.url}/api/v1/skills", files={"file": ("one.zip", zipped)}, timeout=30)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["data"]["version"])


def test_a_version_whose_number_is_given_out_again_after_a_restore_has_its_own_digest(tmp_path: Path) -> None:
    database = tmp_path / "data" / "skillwire.db"

    async def is_back() -> bool:
        return bool(index(service)["one"]["description"] == "The first.")

    async def waited() -> None:
        await eventually(is_back)

    with running(tmp_path / "skills", tmp_path / "data", watch="off") as service:
        assert publish(service, "The first.") == 1
        copy = back_up(database, tmp_path / "copy.db")
        assert publish(service, "The second.") == 2
        assert index(service)["one"]["description"] == "The second."
        restore(database, copy)
        asyncio.run(waited())
        assert publish(service, "Another second.") == 2
        entry = index(service)["one"]
        assert (entry["version"], entry["description"]) == (2, "Another second.")
        artifact = httpx2.get(f"{service.url}{entry['url']}", timeout=30).content
        assert entry["digest"] == f"sha256:{hashlib.sha256(artifact).hexdigest()}"


def command_line(*arguments: str, home: Path) -> str:
    """What the public `skills` says, which must end well."""
    node = shutil.which("node")
    assert node is not None
    argv = [node, str(CLI), *arguments]
    environment = os.environ | {"DISABLE_TELEMETRY": "1", "HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(
        argv,
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not CLI.exists(), reason="`make conformance` installs the skills command line")
def test_the_public_command_line_lists_what_is_here(service: Service, tmp_path: Path) -> None:
    listed = command_line("add", service.url, "--list", home=tmp_path).partition("Available Skills")[2].split("\n")
    lines = [line.strip("\u2502 ") for line in listed]
    for name, entry in index(service).items():
        after = [line for line in lines[lines.index(name) :] if line]
        assert after[1] == entry["description"]
    assert not (tmp_path / ".claude").exists(), "it was asked for a list alone"


@pytest.mark.skipif(not CLI.exists(), reason="`make conformance` installs the skills command line")
def test_the_public_command_line_installs_from_here(service: Service, tmp_path: Path) -> None:
    command_line("add", service.url, "--skill", "*", "-y", "-a", "claude-code", home=tmp_path)
    names = index(service).keys()
    installed = {path.parent.name: path for path in (tmp_path / ".claude" / "skills").glob("*/SKILL.md")}
    assert installed.keys() == names
    for name, entry in index(service).items():
        manifest = httpx2.get(f"{service.url}/api/v1/skills/main/{name}", timeout=30).json()["data"]["manifest"]
        assert entry["version"] >= 1
        for file in manifest:
            data = (installed[name].parent / file["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file["sha256"], (name, file["path"])
    assert json.loads((tmp_path / "skills-lock.json").read_text())
