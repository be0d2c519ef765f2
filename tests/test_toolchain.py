"""The locks, the wheel and the Makefile are what the README says they are."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"gateway", "services", "notifier"}
LOCKS = ["bootstrap.lock", "requirements.lock", "requirements-dev.lock"]


def pins(lock: str) -> set[str]:
    """`name==version` of every pinned package; several where they depend on the Python."""
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*==[^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE))


def targets() -> dict[str, str]:
    """Documented targets of the Makefile and what each says about itself."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_with_hashes_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    packages = re.split(r"\n(?=\S)", text.strip())

    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=sha256:", ""), re.MULTILINE), "an option, e.g. an index"
    assert all(re.match(r"[a-z0-9._-]+==", each) and "--hash=sha256:" in each for each in packages)


def test_environment_of_the_checks_also_serves() -> None:
    """`make run` after `make test` keeps the larger environment."""
    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_bootstrap_lock_agrees_with_the_sets_it_is_installed_with() -> None:
    names = {each.partition("==")[0] for each in pins("bootstrap.lock")}
    shared = {each for each in pins("requirements-dev.lock") if each.partition("==")[0] in names}

    assert {"uv", "hatchling", "editables"} <= names
    assert shared <= pins("bootstrap.lock")


@pytest.mark.parametrize("folder", ["frontend", "tests/conformance"])
def test_node_locks_name_no_host(folder: str) -> None:
    text = (ROOT / folder / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]

    assert '"resolved"' not in text
    assert all("integrity" in each or each.get("link") for path, each in packages.items() if path)
    assert "://" not in text
    assert "omit-lockfile-registry-resolved=true" in (ROOT / folder / ".npmrc").read_text().split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_the_three_packages_with_the_dashboard_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if not name.startswith("skillwire-")}
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert packed == files
    assert "gateway/dashboard/index.html" in packed


def test_our_packages_belong_to_us_alone(
    wheel: zipfile.ZipFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has projects named `services` and `notifier`, and pip merges folders silently."""
    wheel.extractall(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    owners = metadata.packages_distributions()

    assert {name: set(owners[name]) for name in PACKAGES} == {name: {"skillwire"} for name in PACKAGES}


def test_command_of_the_installed_project_is_ours() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="skillwire")

    assert command.value == "gateway.__main__:main"
    assert (Path(sys.executable).parent / "skillwire").is_file()


def test_help_lists_every_documented_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    listed = dict(re.findall(r"^([a-z-]+) +(.+)$", done.stdout, re.MULTILINE))

    assert listed == targets()
    assert {"help", "run", "test", "check", "dev", "bench", "lock", "clean"} <= set(listed)


def test_readme_names_only_targets_that_exist() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))

    assert {"run", "test", "check"} <= named
    assert named <= set(targets())


@pytest.mark.parametrize(
    ("environment", "settings", "allowed"),
    [
        ({}, "", '["main"]'),
        ({}, "port = 9000", '["main"]'),
        ({"SKILLWIRE_SCRIPTS_ALLOWED_OWNERS": ""}, "", ""),
        ({"SKILLWIRE_SCRIPTS_ALLOWED_OWNERS": '["team"]'}, "", '["team"]'),
        ({"SKILLWIRE_SKILLS_DIR": "elsewhere"}, "", "unset"),
        ({"SKILLWIRE_OWNER": "team"}, "", "unset"),
        ({}, "scripts_allowed_owners = []", "unset"),
        ({}, 'skills_dir = "elsewhere"', "unset"),
    ],
)
def test_make_run_allows_scripts_of_the_sample_folder_alone(
    environment: dict[str, str], settings: str, allowed: str, tmp_path: Path
) -> None:
    """The launcher in a checkout whose set-up is done and whose service says what it was allowed."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "serve.sh", tmp_path / "scripts")
    (tmp_path / "scripts" / "set_up.py").touch()
    (tmp_path / "skillwire.toml").write_text(settings)
    service = tmp_path / ".venv" / "bin" / "skillwire"
    service.parent.mkdir(parents=True)
    service.write_text('#!/bin/sh\necho "$*:${SKILLWIRE_SCRIPTS_ALLOWED_OWNERS-unset}"\n')
    service.chmod(0o755)

    done = subprocess.run(
        [tmp_path / "scripts" / "serve.sh"],
        env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )

    assert done.stdout == f"serve:{allowed}\n"


def test_ci_runs_every_part_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()
    loop = re.search(r"for part in ([a-z -]+); do", ci)

    assert recipe is not None
    assert loop is not None
    run = {*loop[1].split(), *re.findall(r"^make --keep-going ([a-z-]+) \|\| failed", ci, re.MULTILINE)}
    assert run == set(re.findall(r"\$\(MAKE\) ([a-z-]+)", recipe[1]))


def test_image_and_manifests_carry_the_version_of_the_project() -> None:
    base = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text())
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert project is not None
    assert [image["newTag"] for image in base["images"]] == [project[1]]
