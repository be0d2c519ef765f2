"""What is kept of a folder's files, and when it may stand for reading them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.skills.stamps import Stamp, Stamps, look_at
from tests.support.packages import settled_look, write_package


def replaced_by_its_like(file: Path) -> None:
    """Another file of the same name, size and modification time."""
    status = file.stat()
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


def written_in_place(file: Path) -> None:
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(b"Do it", b"Do at"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        written_in_place,
        replaced_by_its_like,
        lambda file: file.chmod(0o600),
        lambda file: file.unlink(),
        lambda file: file.with_name("more.md").write_text("more"),
        lambda file: file.with_name("link").symlink_to(file.parent.parent),
    ],
)
def test_whatever_changes_a_package_changes_its_look(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = write_package(tmp_path, "demo")
    before = settled_look(root)
    assert look_at(root) == before
    change(root / "SKILL.md")
    assert look_at(root) is None  # too young to tell
    assert settled_look(root) != before


def test_a_folder_that_is_not_there_has_no_look(tmp_path: Path) -> None:
    assert look_at(tmp_path / "gone") is None


def test_what_was_kept_is_there_after_a_restart_for_the_same_folder_only(tmp_path: Path) -> None:
    stamps = {"demo": Stamp(b"look", "sha256:1")}
    Stamps(tmp_path / "stamps", "/skills").write(stamps)
    assert Stamps(tmp_path / "stamps", "/skills").read() == stamps
    assert Stamps(tmp_path / "stamps", "/other").read() == {}


def test_a_damaged_file_is_as_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "stamps").write_bytes(b"\xff\x00")
    assert Stamps(tmp_path / "stamps", "/skills").read() == {}


def test_a_file_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    Stamps(tmp_path / "no" / "stamps", "/skills").write({"demo": Stamp(b"look", "sha256:1")})
    assert not (tmp_path / "no").exists()
