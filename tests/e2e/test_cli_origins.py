"""Publishing from elsewhere, and a whole folder, as a person types it."""

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands.origins import DOWNLOAD_BYTES_MAX
from services.skills.uploads import PART_BYTES_MAX
from tests.support.packages import skill_md, write_files, write_package, zip_of
from tests.support.service import Service, get, skillwire


class _Site(http.server.BaseHTTPRequestHandler):
    """A web site with a package, redirects, and something without an end."""

    is_back = False

    def do_GET(self) -> None:  # the base class's name
        if self.path == "/package.zip":
            self._answer(200, zip_of({"SKILL.md": skill_md("from-a-url")}))
        elif self.path == "/moved":
            self._answer(302, b"", ("Location", "/package.zip"))
        elif self.path == "/round":
            self._answer(302, b"", ("Location", "/round"))
        elif self.path == "/inside":
            self._answer(302, b"", ("Location", "http://169.254.169.254/latest/meta-data"))
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(DOWNLOAD_BYTES_MAX // 65536 + 2):
                self.wfile.write(bytes(65536))
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:  # the same
        """A service behind a proxy, which says once that it will be back, and when."""
        self.rfile.read(int(self.headers["content-length"]))
        if _Site.is_back:
            made = {"id": "main/late", "version": 1, "digest": "sha256:0", "changed": True}
            self._answer(201, json.dumps({"data": made}).encode())
        else:
            _Site.is_back = True
            self._answer(503, b"", ("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT"))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what a test prints is its result."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/package.zip", "/moved"])
def test_the_zip_at_a_url_is_published(service: Service, site: str, path: str) -> None:
    done = skillwire("publish", site + path, "--url", service.url, "--allow-private")
    assert done.returncode == 0, done.stderr
    assert "main/from-a-url version 1" in done.stdout


@pytest.mark.parametrize(
    ("path", "allowed", "reason"),
    [
        ("/package.zip", False, "private network"),
        ("/inside", True, "where no package is kept"),
        ("/round", True, "more than 5 redirects"),
        ("/nothing", True, "answers 404"),
        ("/endless", True, "holds more than"),
    ],
)
def test_a_url_that_leads_nowhere_good_is_refused(
    service: Service, site: str, path: str, allowed: bool, reason: str
) -> None:
    more = ("--allow-private",) if allowed else ()
    done = skillwire("publish", site + path, "--url", service.url, *more)
    assert done.returncode == 1
    assert reason in done.stderr


@pytest.mark.parametrize("host", ["localhost", "[::1]", "0x7f000001", "127.1", "[::ffff:10.0.0.1]", "192.168.0.1"])
def test_no_way_of_writing_a_private_address_gets_through(host: str) -> None:
    done = skillwire("publish", f"http://{host}:9/x.zip")
    assert done.returncode == 1
    assert "private network" in done.stderr or "not known" in done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two branches, a package in a folder of one, a hook and a link that must have no effect."""
    folder = tmp_path / "repository"
    write_package(folder / "skills", "from-git", body="On main.")
    (folder / "out").symlink_to("/etc")

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "next/one")
    write_package(folder / "skills", "from-git", body="On next.")
    git("commit", "-am", "two")
    git("checkout", "main")
    return folder


def test_a_package_in_a_git_repository_is_published_and_no_hook_is_run(
    service: Service, repository: Path, tmp_path: Path
) -> None:
    trace, template = tmp_path / "hook-ran", tmp_path / "template"
    hook = (
        write_files(template, {"hooks/post-checkout": f"#!/bin/sh\ntouch {trace}\n".encode()}) / "hooks/post-checkout"
    )
    hook.chmod(0o755)
    (tmp_path / "gitconfig").write_text(f"[init]\n\ttemplateDir = {template}\n[core]\n\thooksPath = {template}/hooks\n")
    origin = f"git+file://{repository}"
    os.environ["GIT_CONFIG_GLOBAL"] = str(tmp_path / "gitconfig")
    try:
        first = skillwire("publish", f"{origin}#subdir=skills/from-git", "--url", service.url)
        second = skillwire("publish", f"{origin}@next/one#subdir=skills/from-git", "--url", service.url)
    finally:
        del os.environ["GIT_CONFIG_GLOBAL"]
    assert first.returncode == 0, first.stderr
    assert "main/from-git version 1" in first.stdout
    assert "main/from-git version 2" in second.stdout, second.stderr
    assert not trace.exists()


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        ("", "holds 1: skills/from-git; publish one, or all with `skillwire import git+file://"),
        ("#subdir=none", "no folder"),
        ("#subdir=../..", "not allowed"),
        ("#subdir=out", "no folder"),
        ("@--upload-pack=x#subdir=skills/from-git", "not of the form"),
        ("@no-such-branch", "cannot be cloned"),
    ],
)
def test_a_repository_address_that_names_no_package_says_why(repository: Path, suffix: str, reason: str) -> None:
    done = skillwire("publish", f"git+file://{repository}{suffix}")
    assert done.returncode == 1
    assert reason in done.stderr


@pytest.mark.parametrize("origin", ["git+ext::sh -c id", "git+ssh://-oProxyCommand=id/x", "git+https:///", "ftp://x/y"])
def test_no_other_way_is_followed(origin: str) -> None:
    done = skillwire("publish", origin)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_large_package_goes_up_in_parts_and_the_second_time_sends_none(service: Service, tmp_path: Path) -> None:
    folder = write_files(
        tmp_path / "large-by-hand", {"SKILL.md": skill_md("large-by-hand"), "a.bin": os.urandom(PART_BYTES_MAX + 9)}
    )
    first = skillwire("publish", folder, "--url", service.url)
    assert first.returncode == 0, first.stderr
    assert "published main/large-by-hand version 1" in first.stdout
    again = skillwire("publish", folder, "--url", service.url)
    assert "already active: main/large-by-hand version 1" in again.stdout


def test_a_folder_is_imported_with_a_report_and_again_without_a_change(service: Service, tmp_path: Path) -> None:
    root = tmp_path / "many"
    for at in range(12):
        write_package(root, f"imported-{at:02}")
    write_files(root / "broken", {"SKILL.md": b"no frontmatter"})
    first = skillwire("import", root, "--url", service.url, "--jobs", "3")
    assert first.returncode == 1
    why = "SKILL.md:1: SKILL.md does not start with frontmatter -- begin the file with a line `---`"
    assert f"refused     broken: {why}" in first.stdout
    assert first.stdout.endswith("12 published, 0 unchanged, 1 refused\n")
    assert get(service, "/skills/main/imported-11")["version"] == 1

    (root / "broken" / "SKILL.md").unlink()
    again = skillwire("import", root, "--url", service.url, "--json")
    assert again.returncode == 0
    report = json.loads(again.stdout)
    assert {kind: len(some) for kind, some in report.items()} == {
        "published": 0,
        "unchanged": 12,
        "refused": 0,
        "untried": 0,
    }
    assert report["unchanged"][0]["path"] == "imported-00"


def test_a_proxy_that_says_a_date_to_come_back_at_is_asked_again(site: str, tmp_path: Path) -> None:
    done = skillwire("publish", write_package(tmp_path, "late"), "--url", site)
    assert (done.returncode, done.stdout) == (0, "published main/late version 1 sha256:0\n")


@pytest.mark.parametrize("key", ["cl\u00e9", "two\nlines"])
def test_a_key_that_is_none_is_said_to_be(tmp_path: Path, key: str) -> None:
    done = skillwire("publish", write_package(tmp_path, "keyed"), "--key", key)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the key holds characters" in done.stderr


def test_a_folder_with_more_than_plain_files_is_not_published_without_them(service: Service, tmp_path: Path) -> None:
    folder = write_package(tmp_path, "linked")
    (folder / "link.md").symlink_to("SKILL.md")
    done = skillwire("publish", folder, "--url", service.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{folder} cannot be served: link.md: only regular files are allowed" in done.stderr


def test_of_two_packages_with_one_name_the_first_is_imported_every_time(service: Service, tmp_path: Path) -> None:
    for folder, body in (("a", "First."), ("b", "Second."), ("c", "Third.")):
        write_package(tmp_path / folder, "told-twice", body=body)
    (tmp_path / "a" / "told-twice" / "SKILL.md").write_bytes(b"no frontmatter")
    for kind in ("published", "unchanged"):
        done = skillwire("import", tmp_path, "--url", service.url, "--json")
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert [each["path"] for each in report[kind]] == ["b/told-twice"]
        assert [each["path"] for each in report["refused"]] == ["a/told-twice", "c/told-twice"]
        assert "b/told-twice gives the same skill main/told-twice" in report["refused"][1]["reason"]
    assert get(service, "/skills/main/told-twice")["version"] == 1


def test_every_package_of_a_git_repository_is_imported(service: Service, repository: Path) -> None:
    write_package(repository / "skills", "not-committed")
    origin = f"git+file://{repository}"
    done = skillwire("import", f"{origin}@next/one", "--url", service.url, "--owner", "team", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["path"] for each in json.loads(done.stdout)["published"]] == ["skills/from-git"]
    below = skillwire("import", f"{origin}@next/one#subdir=skills", "--url", service.url, "--owner", "team")
    assert below.stdout == "0 published, 1 unchanged, 0 refused\n"
    missing = skillwire("import", f"{origin}#subdir=none", "--url", service.url)
    assert (missing.returncode, "no folder" in missing.stderr) == (1, True)


def test_a_folder_whose_name_is_not_utf_8_is_imported_under_the_name_it_gives(service: Service, tmp_path: Path) -> None:
    write_files(tmp_path / os.fsdecode(b"odd\xff"), {"SKILL.md": skill_md("even")})
    done = skillwire("import", tmp_path, "--url", service.url, "--json")
    assert done.returncode == 0, done.stderr
    (made,) = json.loads(done.stdout)["published"]
    assert (made["path"].rstrip("\ufffd"), made["id"], made["grade"]) == ("odd", "main/even", "lenient")


def test_an_import_from_nowhere_says_what_it_takes(tmp_path: Path) -> None:
    done = skillwire("import", tmp_path / "none")
    assert done.returncode == 2
    assert "is no folder and no URL of git+" in done.stderr


def test_an_import_stops_when_nobody_answers(tmp_path: Path) -> None:
    write_package(tmp_path, "alone")
    done = skillwire("import", tmp_path, "--url", "http://127.0.0.1:9", "--json")
    assert done.returncode == 3
    assert len(json.loads(done.stdout)["untried"]) == 1
