"""The console command, as a person types it."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.service import Service, get, skillwire, write_skill


def test_version_and_help_name_every_command() -> None:
    assert skillwire("--version").stdout == f"skillwire, version {version('skillwire')}\n"
    shown = skillwire("--help").stdout
    for name in ("serve", "stdio", "publish", "validate"):
        assert name in shown
        assert skillwire(name, "-h").returncode == 0


def test_a_folder_and_a_zip_of_it_are_published_as_one_version(service: Service, tmp_path: Path) -> None:
    folder = write_skill(tmp_path, "by-hand", "Published from a terminal.")
    (folder / "SKILL.md~").write_text("an editor's backup")
    first = skillwire("publish", folder, "--url", service.url)
    assert first.returncode == 0, first.stderr
    digest = get(service, "/skills/main/by-hand")["digest"]
    assert first.stdout == f"published main/by-hand version 1 {digest}\n"
    again = skillwire("publish", folder, "--url", service.url)
    assert again.stdout == f"already active: main/by-hand version 1 {digest}\n"


def test_a_version_can_be_made_without_being_served(service: Service, tmp_path: Path) -> None:
    folder = write_skill(tmp_path, "not-yet")
    assert skillwire("publish", folder, "--url", service.url).returncode == 0
    write_skill(tmp_path, "not-yet", body="Changed.")
    done = skillwire("publish", folder, "--url", service.url, "--no-activate")
    assert done.stdout.startswith("stored main/not-yet version 2 sha256:")
    assert get(service, "/skills/main/not-yet")["version"] == 1


def test_a_stale_digest_publishes_nothing_and_says_why(service: Service, tmp_path: Path) -> None:
    folder = write_skill(tmp_path, "guarded-by-hand")
    assert skillwire("publish", folder, "--url", service.url).returncode == 0
    write_skill(tmp_path, "guarded-by-hand", body="Changed.")
    done = skillwire("publish", folder, "--url", service.url, "--if-match", "sha256:" + "0" * 64)
    assert done.returncode == 1
    digest = get(service, "/skills/main/guarded-by-hand")["digest"]
    assert f"version 1 ({digest}) is active (conflict)" in done.stderr
    assert get(service, "/skills/main/guarded-by-hand")["version"] == 1


def test_a_broken_package_is_refused_with_its_diagnostics(service: Service, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "SKILL.md").write_text("no frontmatter")
    done = skillwire("publish", tmp_path / "broken", "--url", service.url)
    assert done.returncode == 1
    assert "SKILL.md:1: SKILL.md does not start with frontmatter -- begin the file with" in done.stderr


def test_publishing_where_nothing_listens_says_what_to_do(tmp_path: Path) -> None:
    done = skillwire("publish", write_skill(tmp_path, "alone"), "--url", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "skillwire serve" in done.stderr


@pytest.mark.parametrize(("strict", "status"), [((), 0), (("--strict",), 1)])
def test_validate_judges_every_package_with_line_and_hint(tmp_path: Path, strict: tuple[str, ...], status: int) -> None:
    write_skill(tmp_path, "good")
    write_skill(tmp_path, "renamed").rename(tmp_path / "elsewhere")
    done = skillwire("validate", tmp_path, *strict)
    assert done.returncode == status
    assert "strict      " in done.stdout
    assert "SKILL.md:2: the name 'renamed' differs from its folder 'elsewhere' -- rename one of them" in done.stdout
    assert done.stdout.endswith(f"2 packages, {status} failed\n")


def test_validate_fails_for_what_could_not_be_served_and_for_no_package_at_all(tmp_path: Path) -> None:
    assert skillwire("validate", tmp_path).returncode == 1
    folder = write_skill(tmp_path, "bad")
    (folder / "SKILL.md").write_text("---\nname: bad\ndescription: a: b\n---\n")
    done = skillwire("validate", tmp_path)
    assert done.returncode == 1
    assert "SKILL.md:3:" in done.stdout
