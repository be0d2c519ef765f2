"""A watched folder against the real store, one scan at a time."""

import os
import shutil
from pathlib import Path

import pytest
from msgspec import structs

from services.models import Diagnostic
from services.skills.package import printable
from services.skills.scan import GONE_ALLOWED, FolderScan
from services.skills.stamps import Stamp, Stamps
from tests.support.packages import (
    OWNER,
    Shelf,
    settled_look,
    skill_md,
    tool,
    tools_json,
    write_files,
    write_package,
)

pytestmark = pytest.mark.anyio

BROKEN = b"---\nname: demo\ndescription: a: b\n---\n"


async def restarted(shelf: Shelf, root: Path) -> FolderScan:
    """A scan as after a start of the service: it knows what the ledger knows."""
    scan = shelf.scan(root)
    await scan.everything()
    await shelf.feed.tail()
    return scan


async def head(shelf: Shelf) -> int:
    return (await shelf.store.head()).seq


async def see(shelf: Shelf, scan: FolderScan, *paths: str) -> None:
    """What the watcher does with paths that are due."""
    there = [path for path in paths if scan.holds(path)]
    await scan.packages(there)
    await shelf.feed.tail()
    await scan.remove(path for path in paths if path not in there)
    await scan.note_bare_folders()
    await shelf.feed.tail()


async def test_a_first_scan_publishes_every_package(shelf: Shelf, root: Path) -> None:
    for at in range(30):  # more than one batch
        write_package(root, f"s{at:02}")
    write_package(root, "group/deep/nested")
    assert await shelf.scan(root).everything() == 31
    await shelf.feed.tail()
    assert len(shelf.view) == 31
    assert shelf.number("nested") == 1
    assert await shelf.text("s07") == skill_md("s07").decode()


async def test_a_scan_of_an_unchanged_folder_publishes_nothing(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    write_files(root / "bad", {"SKILL.md": BROKEN})
    (root / "bare").mkdir()
    scan = await restarted(shelf, root)
    before = await head(shelf)
    assert await scan.everything() == 0
    assert await shelf.scan(root).everything() == 0
    assert await head(shelf) == before


async def test_an_edit_is_one_version(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    write_package(root, "demo", body="Do it anew.")
    await see(shelf, scan, "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2
    assert "anew" in await shelf.text("demo")


async def test_a_restart_does_not_undo_a_rollback(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    write_package(root, "demo", body="Two.")
    await see(shelf, scan, "demo")
    await shelf.store.activate(f"{OWNER}/demo", 1, "ada")
    scan = await restarted(shelf, root)
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 1
    write_package(root, "demo", body="Three.")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 3


async def test_new_rules_of_ours_do_not_undo_a_rollback(shelf: Shelf, root: Path) -> None:
    """A newer release may find more to say about the same files: that is noted, not published."""
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    write_package(root, "demo", body="Two.")
    await see(shelf, scan, "demo")
    await shelf.store.activate(f"{OWNER}/demo", 1, "ada")
    (entry,) = (await shelf.store.ledger(scan.source)).values()
    older = Diagnostic("warning", "what an older release said")
    await shelf.store.note([structs.replace(entry, diagnostics=(older,))])
    await restarted(shelf, root)
    assert shelf.number("demo") == 1
    assert await shelf.reasons(scan.source, "demo") == []


async def test_a_deleted_folder_takes_its_skill_out_of_service(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    write_package(root, "other")
    scan = await restarted(shelf, root)
    shutil.rmtree(root / "demo")
    await see(shelf, scan, "demo")
    assert (shelf.number("demo"), shelf.number("other")) == (None, 1)
    assert list(await shelf.store.ledger(scan.source)) == ["other"]
    write_package(root, "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2


async def test_a_folder_deleted_while_the_service_was_down_is_noticed(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    await restarted(shelf, root)
    shutil.rmtree(root / "demo")
    await restarted(shelf, root)
    assert shelf.number("demo") is None


async def test_deletion_sees_what_was_published_a_moment_ago(shelf: Shelf, root: Path) -> None:
    """The view follows the log with a delay; a skill that it does not show yet must not stay for ever."""
    await shelf.feed.close()
    write_package(root, "demo")
    scan = shelf.scan(root)
    await scan.everything()
    shutil.rmtree(root / "demo")
    await scan.remove(["demo"])
    await shelf.feed.tail()
    assert (await shelf.store.snapshot()).skills[0].active is None


async def test_a_skill_uploaded_over_the_folder_s_stays_when_the_folder_goes(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    other = shelf.scan(root)
    other.source = "upload"
    write_package(root, "demo", body="Uploaded.")
    await other.everything()
    await shelf.feed.tail()
    shutil.rmtree(root / "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2


async def test_a_renamed_folder_keeps_its_skill_in_service(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    (root / "demo").rename(root / "moved")
    await see(shelf, scan, "moved")
    await see(shelf, scan, "demo")  # two seconds later
    assert shelf.number("demo") is not None
    assert list(await shelf.store.ledger(scan.source)) == ["moved"]
    (root / "moved").rename(root / "again")
    await restarted(shelf, root)
    assert shelf.number("demo") is not None


async def test_a_skill_that_is_renamed_in_place_does_not_leave_the_old_one_served(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    write_files(root / "demo", {"SKILL.md": skill_md("other")})
    await see(shelf, scan, "demo")
    assert (shelf.number("demo"), shelf.number("other")) == (None, 1)
    shutil.rmtree(root / "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("other") is None


async def test_of_two_packages_with_one_name_the_first_path_serves(shelf: Shelf, root: Path) -> None:
    write_package(root, "a/demo", body="First.")
    write_package(root, "b/demo", body="Second.")
    scan = await restarted(shelf, root)
    assert "First" in await shelf.text("demo")
    assert "a/demo gives the same skill main/demo" in (await shelf.reasons(scan.source, "b/demo"))[0]
    write_package(root, "b/demo", body="Second, edited.")
    await see(shelf, scan, "b/demo")
    assert (shelf.number("demo"), "First" in await shelf.text("demo")) == (1, True)
    shutil.rmtree(root / "a")
    await see(shelf, scan, "a/demo")
    assert "Second, edited" in await shelf.text("demo")
    assert await shelf.reasons(scan.source, "b/demo") == []


async def test_a_twin_takes_over_when_the_first_is_renamed(shelf: Shelf, root: Path) -> None:
    write_package(root, "a/demo", body="First.")
    write_package(root, "b/demo", body="Second.")
    scan = await restarted(shelf, root)
    write_files(root / "a/demo", {"SKILL.md": skill_md("other")})
    await see(shelf, scan, "a/demo")
    assert "Second" in await shelf.text("demo")
    assert shelf.number("other") == 1


async def test_a_newcomer_does_not_take_the_name_of_what_is_served(shelf: Shelf, root: Path) -> None:
    write_package(root, "b/demo", body="Served.")
    scan = await restarted(shelf, root)
    write_package(root, "a/demo", body="Newcomer.")
    await see(shelf, scan, "a/demo")
    scan = await restarted(shelf, root)
    assert "Served" in await shelf.text("demo")
    assert await shelf.reasons(scan.source, "a/demo")


async def test_a_folder_without_a_skill_md_is_noted_and_cleared(shelf: Shelf, root: Path) -> None:
    (root / "bare").mkdir()
    (root / ".hidden").mkdir()
    write_package(root, "group/demo")
    scan = await restarted(shelf, root)
    assert list(await shelf.store.ledger(scan.source)) == ["bare", "group/demo"]
    assert "no SKILL.md" in (await shelf.reasons(scan.source, "bare"))[0]
    write_package(root, "bare")
    await see(shelf, scan, "bare")
    assert (shelf.number("bare"), await shelf.reasons(scan.source, "bare")) == (1, [])
    (root / "bare" / "SKILL.md").unlink()
    await see(shelf, scan, "bare")
    assert shelf.number("bare") is None
    assert "no SKILL.md" in (await shelf.reasons(scan.source, "bare"))[0]
    shutil.rmtree(root / "bare")
    await see(shelf, scan, "bare")
    assert list(await shelf.store.ledger(scan.source)) == ["group/demo"]


async def test_a_bare_folder_does_not_become_a_skill_when_another_goes(shelf: Shelf, root: Path) -> None:
    (root / "bare").mkdir()
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    shutil.rmtree(root / "demo")
    await see(shelf, scan, "demo")
    assert shelf.skill("bare") is None


async def test_a_broken_edit_is_shown_while_the_old_version_serves(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    write_files(root / "demo", {"SKILL.md": BROKEN})
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 1
    assert "broken YAML" in (await shelf.reasons(scan.source, "demo"))[0]
    assert [version.grade for version in await shelf.store.versions(f"{OWNER}/demo")] == ["quarantined", "strict"]
    write_package(root, "demo", body="Mended.")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 3
    assert await shelf.reasons(scan.source, "demo") == []


async def test_a_broken_edit_stays_with_the_skill_whose_name_it_can_no_longer_give(shelf: Shelf, root: Path) -> None:
    write_files(root / "folder", {"SKILL.md": skill_md("demo")})
    scan = await restarted(shelf, root)
    write_files(root / "folder", {"SKILL.md": BROKEN})
    await see(shelf, scan, "folder")
    assert (shelf.number("demo"), shelf.skill("folder")) == (1, None)
    assert len(await shelf.store.versions(f"{OWNER}/demo")) == 2


async def test_a_package_that_was_never_good_is_shown_and_serves_once_it_is(shelf: Shelf, root: Path) -> None:
    write_files(root / "demo", {"SKILL.md": BROKEN})
    scan = await restarted(shelf, root)
    found = shelf.skill("demo")
    assert found is not None
    assert (found.status, found.active) == ("quarantined", None)
    write_package(root, "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2


async def test_a_date_that_does_not_exist_keeps_a_package_out_with_its_line(shelf: Shelf, root: Path) -> None:
    write_files(root / "demo", {"SKILL.md": b"---\nname: demo\ndescription: Does.\nsince: 2026-01-00\n---\n"})
    scan = await restarted(shelf, root)
    found = shelf.skill("demo")
    assert found is not None
    assert (found.status, found.active) == ("quarantined", None)
    (noted,) = (await shelf.store.ledger(scan.source))["demo"].diagnostics
    assert (noted.severity, noted.message, noted.line) == ("error", "2026-01-00 is no date", 4)
    assert noted.hint == "write a date that exists, or put it in quotes if it is text"
    write_files(root / "demo", {"SKILL.md": b"---\nname: demo\ndescription: Does.\nsince: '2026-01-00'\n---\n"})
    await see(shelf, scan, "demo")
    assert (shelf.number("demo"), await shelf.reasons(scan.source, "demo")) == (2, [])


async def test_a_link_beside_the_files_is_noticed_although_the_digest_is_the_same(shelf: Shelf, root: Path) -> None:
    folder = write_package(root, "demo")
    (folder / "link").symlink_to("/etc/passwd")
    scan = await restarted(shelf, root)
    assert shelf.number("demo") is None
    (folder / "link").unlink()
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2
    (folder / "link").symlink_to("/etc/passwd")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 2
    assert await shelf.reasons(scan.source, "demo") == ["only regular files are allowed, no links or devices"]


async def test_a_vanished_root_is_held_until_it_is_back(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    scan = await restarted(shelf, root)
    shutil.move(root, root.with_name("away"))
    await see(shelf, scan, "demo")
    assert "vanished" in scan.held
    assert shelf.number("demo") == 1
    assert await scan.everything() == 0
    assert scan.held
    root.with_name("away").rename(root)
    assert await scan.everything() == 0
    assert (scan.held, shelf.number("demo")) == ("", 1)


async def test_many_gone_at_once_are_held_and_released_when_back(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    names = [f"s{at:02}" for at in range(20)]
    for name in names:
        write_package(root, name)
    scan = await restarted(shelf, root)
    gone = names[: GONE_ALLOWED + 1]
    for name in gone:
        (root / name).rename(tmp_path / name)
    for portion in (gone[:3], gone[3:]):  # as they come due, in portions that are small enough each
        await see(shelf, scan, *portion)
    assert f"{len(gone)} of 20" in scan.held
    assert [shelf.number(name) for name in gone] == [1] * len(gone)
    write_package(root, "s19", body="Edited meanwhile.")
    await see(shelf, scan, "s19")
    assert scan.held
    assert shelf.number("s19") == 2
    for name in gone[:2]:
        (tmp_path / name).rename(root / name)
    await see(shelf, scan, *gone[:2])
    assert scan.held == ""
    assert [shelf.number(name) for name in gone] == [1, 1, None, None, None, None]


async def test_what_is_deleted_by_hand_is_held_no_longer(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    names = [f"s{at:02}" for at in range(8)]
    for name in names:
        write_package(root, name)
    scan = await restarted(shelf, root)
    for name in names[:6]:
        (root / name).rename(tmp_path / name)
    await see(shelf, scan, *names[:6])
    assert scan.held
    await shelf.store.deactivate(f"{OWNER}/s00", "ada")
    await shelf.feed.tail()
    await see(shelf, scan)
    assert scan.held == ""
    assert sorted(await shelf.store.ledger(scan.source)) == ["s06", "s07"]


async def test_a_fifth_of_a_large_folder_may_go(shelf: Shelf, root: Path) -> None:
    names = [f"s{at:02}" for at in range(40)]
    for name in names:
        write_package(root, name)
    scan = await restarted(shelf, root)
    for name in names[:8]:
        shutil.rmtree(root / name)
    await see(shelf, scan, *names[:8])
    assert scan.held == ""
    assert [shelf.number(name) for name in names[:9]] == [None] * 8 + [1]


async def test_a_linked_folder_is_not_followed_and_says_so(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "elsewhere", "demo")
    write_package(tmp_path / "elsewhere", "group/deep")
    (root / "demo").symlink_to(tmp_path / "elsewhere" / "demo")
    (root / "group").symlink_to(tmp_path / "elsewhere" / "group")
    scan = await restarted(shelf, root)
    await see(shelf, scan, "demo", "group", "group/deep")
    assert len(shelf.view) == 0
    assert "links" in (await shelf.reasons(scan.source, "demo"))[0]
    (root / "demo").unlink()
    await see(shelf, scan, "demo")
    assert list(await shelf.store.ledger(scan.source)) == ["group"]


async def test_names_that_are_not_utf_8_stop_nobody_else(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    write_package(root, "good")
    odd = os.fsdecode(b"odd\xff")
    shown = printable(odd)
    write_files(root / "demo", {odd: b"x"})
    write_files(root / odd, {"SKILL.md": skill_md()})
    write_files(root / f"bare-{odd}", {"readme.md": b"x"})
    scan = await restarted(shelf, root)
    assert (shelf.number("good"), shelf.number("demo")) == (1, None)
    ledger = await shelf.store.ledger(scan.source)
    assert sorted(ledger) == [f"bare-{shown}", "demo", "good", shown]
    assert [found.message for found in ledger[shown].diagnostics] == ["the name of this folder is not UTF-8"]
    assert await scan.everything() == 0
    shutil.rmtree(root / odd)
    await scan.note_bare_folders()
    assert sorted(await shelf.store.ledger(scan.source)) == [f"bare-{shown}", "demo", "good"]


async def test_a_hostile_package_stops_nobody_else(shelf: Shelf, root: Path) -> None:
    hostile = {
        "yaml-tag": {"SKILL.md": b"---\nname: yaml-tag\nx: !!bool maybe\n---\n"},
        "yaml-int": {"SKILL.md": b"---\nname: yaml-int\ndescription: d\nx: 0x" + b"f" * 9000 + b"\n---\n"},
        "deep": {"SKILL.md": skill_md("deep"), "tools.json": b'{"tools":[{"inputSchema":' + b'{"a":' * 9000},
        "bytes": {"SKILL.md": skill_md("bytes"), "tools.json": b'{"tools": "\xff"}'},
        "big-int": {
            "SKILL.md": skill_md("big-int"),
            "scripts/run.py": b"",
            "tools.json": tools_json(tool(inputSchema={"type": "object", "enum": [10**40]})),
        },
    }
    for name, files in hostile.items():
        write_files(root / name, files)
    write_package(root, "zz-good")
    await restarted(shelf, root)
    assert len(shelf.view) == len(hostile) + 1
    assert shelf.number("zz-good") == 1


async def test_a_start_finds_what_changed_while_nothing_ran(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    for name in ("kept", "edited", "deleted"):
        settled_look(write_package(root, name))
    assert await shelf.scan(root, tmp_path / "stamps").everything(trusting=True) == 3
    await shelf.feed.tail()
    assert Stamps(tmp_path / "stamps", str(root)).read().keys() == {"kept", "edited", "deleted"}
    shutil.rmtree(root / "deleted")
    write_package(root, "edited", body="Do it anew.")
    write_package(root, "added")
    assert await shelf.scan(root, tmp_path / "stamps").everything(trusting=True) == 2
    await shelf.feed.tail()
    assert await shelf.text("edited") == skill_md("edited", body="Do it anew.").decode()
    assert (shelf.number("kept"), shelf.number("edited"), shelf.number("added")) == (1, 2, 1)
    assert shelf.active("deleted") is None


async def test_what_looks_as_it_was_read_is_not_read_by_a_start_but_by_hand(
    shelf: Shelf, root: Path, tmp_path: Path
) -> None:
    write_package(root, "demo")
    await shelf.scan(root, tmp_path / "stamps").everything(trusting=True)
    await shelf.feed.tail()
    before = shelf.active("demo")
    assert before is not None
    look = settled_look(write_package(root, "demo", body="Do it anew."))
    Stamps(tmp_path / "stamps", str(root)).write({"demo": Stamp(look, before.digest)})
    assert await shelf.scan(root, tmp_path / "stamps").everything(trusting=True) == 0
    assert await shelf.scan(root, tmp_path / "stamps").everything() == 1


async def test_a_look_says_nothing_where_the_ledger_has_another_digest(
    shelf: Shelf, root: Path, tmp_path: Path
) -> None:
    """As after the database was restored, or another machine scanned meanwhile."""
    look = settled_look(write_package(root, "demo"))
    Stamps(tmp_path / "stamps", str(root)).write({"demo": Stamp(look, "sha256:" + "0" * 64)})
    assert await shelf.scan(root, tmp_path / "stamps").everything(trusting=True) == 1


async def test_what_is_too_young_to_tell_is_read_again(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    write_package(root, "demo")
    await shelf.scan(root, tmp_path / "stamps").everything(trusting=True)
    assert not Stamps(tmp_path / "stamps", str(root)).read()
