"""The real watcher on real files: what people, editors and copies do ends in the right content."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.skills.watcher import FolderWatcher
from tests.support.packages import (
    OWNER,
    WAIT_S,
    Shelf,
    eventually,
    open_shelf,
    save_by_rename,
    skill_md,
    write_files,
    write_package,
)

pytestmark = pytest.mark.anyio

Watch = Callable[..., Awaitable[FolderWatcher]]


@pytest.fixture
async def watch(shelf: Shelf, root: Path) -> AsyncIterator[Watch]:
    """Starts watchers that are closed at the end, and waits for the first scan."""
    async with AsyncExitStack() as stack:

        async def start(folder: Path = root, *, polling: bool = False) -> FolderWatcher:
            watcher = FolderWatcher(shelf.scan(folder), shelf.store, replica="one", polling=polling)
            watcher.start()
            stack.push_async_callback(watcher.close)
            async with asyncio.timeout(WAIT_S):
                await watcher.scanned.wait()
            return watcher

        yield start


async def settled(shelf: Shelf, name: str, text: str) -> None:
    """Returns once the active version holds this text."""
    async with asyncio.timeout(WAIT_S):
        while text not in await shelf.text(name):  # noqa: ASYNC110  # files have no event that tests could wait for
            await asyncio.sleep(0.005)


async def quiet(shelf: Shelf, root: Path) -> None:
    """Returns once the watcher has taken everything that was written before this call: it takes
    what is due in the order in which it came."""
    write_package(root, "zz-marker", body=os.urandom(4).hex())
    before = shelf.number("zz-marker")
    await eventually(lambda: shelf.number("zz-marker") != before)


async def test_a_new_folder_an_edit_and_a_deletion_are_followed(shelf: Shelf, root: Path, watch: Watch) -> None:
    watcher = await watch()
    assert watcher.state == "watching"
    write_package(root, "demo")
    await eventually(lambda: shelf.number("demo") == 1)
    write_package(root, "demo", body="Edited.")
    await settled(shelf, "demo", "Edited.")
    assert shelf.number("demo") == 2
    shutil.rmtree(root / "demo")
    await eventually(lambda: shelf.number("demo") is None)
    async with asyncio.timeout(WAIT_S):
        while await shelf.store.ledger(watcher.source):  # noqa: ASYNC110  # the entry goes after the skill
            await asyncio.sleep(0.005)


async def test_what_was_there_before_the_start_is_published(shelf: Shelf, root: Path, watch: Watch) -> None:
    write_package(root, "demo")
    await watch()
    await eventually(lambda: shelf.number("demo") == 1)


async def test_an_edit_during_the_first_scan_is_not_missed(shelf: Shelf, root: Path) -> None:
    for at in range(40):
        write_package(root, f"s{at:02}")
    watcher = FolderWatcher(shelf.scan(root), shelf.store, replica="one", polling=False)
    watcher.start()
    await eventually(lambda: watcher.state == "scanning")
    write_package(root, "s00", body="Edited.")
    write_package(root, "s39", body="Edited.")
    await settled(shelf, "s00", "Edited.")
    await settled(shelf, "s39", "Edited.")
    await watcher.close()


async def test_a_save_by_rename_is_one_version(shelf: Shelf, root: Path, watch: Watch) -> None:
    folder = write_package(root, "demo")
    await watch()
    save_by_rename(folder / "SKILL.md", skill_md("demo", body="Renamed over."))
    await settled(shelf, "demo", "Renamed over.")
    await quiet(shelf, root)
    assert shelf.number("demo") == 2


async def test_a_save_in_two_steps_ends_in_the_right_content(shelf: Shelf, root: Path, watch: Watch) -> None:
    folder = write_package(root, "demo")
    await watch()
    with (folder / "SKILL.md").open("wb") as file:
        file.write(b"---\nname: demo\n")
        file.flush()
        await eventually(lambda: shelf.skill("demo") is not None and shelf.view.revision > 1)  # half a file was taken
        assert shelf.number("demo") == 1
        file.write(b"description: d\n---\n\nIn two steps.\n")
    await settled(shelf, "demo", "In two steps.")


async def test_vim_s_way_of_saving_ends_in_the_right_content(shelf: Shelf, root: Path, watch: Watch) -> None:
    folder = write_package(root, "demo")
    await watch()
    for body in ("One.", "Two."):
        (folder / ".SKILL.md.swp").write_bytes(b"vim")
        (folder / "4913").write_bytes(b"")
        (folder / "4913").unlink()
        (folder / "SKILL.md").rename(folder / "SKILL.md~")
        (folder / "SKILL.md").write_bytes(skill_md("demo", body=body))
        (folder / "SKILL.md~").unlink()
        (folder / ".SKILL.md.swp").unlink()
        await settled(shelf, "demo", body)
    await quiet(shelf, root)
    assert [entry.path for entry in (shelf.active("demo") or pytest.fail("gone")).manifest] == ["SKILL.md"]
    assert shelf.number("demo") == 3


async def test_a_delete_and_rewrite_within_the_quiet_time_takes_nothing_out_of_service(
    shelf: Shelf, root: Path, watch: Watch
) -> None:
    folder = write_package(root, "demo")
    await watch()
    shutil.rmtree(folder)
    await quiet(shelf, root)
    write_package(root, "demo", body="Checked out anew.")
    await settled(shelf, "demo", "Checked out anew.")
    kinds = [change.kind for change in await shelf.store.tail(0, 100) if f"{OWNER}/demo".encode() in change.data]
    assert kinds == ["skill.published", "skill.published"]


async def test_a_folder_copied_slowly_is_one_version(shelf: Shelf, root: Path, watch: Watch) -> None:
    await watch()
    folder = write_files(root / "demo", {"SKILL.md": skill_md("demo", body="Copied.")})
    for at in range(10):  # half a second in all: time itself is what this tests
        await asyncio.sleep(0.05)
        write_files(folder, {f"references/{at}.md": b"x"})
    await eventually(lambda: shelf.number("demo"))
    assert len((shelf.active("demo") or pytest.fail("gone")).manifest) == 11
    assert shelf.number("demo") == 1


async def test_a_group_that_is_moved_away_takes_its_skills_along(
    shelf: Shelf, root: Path, tmp_path: Path, watch: Watch
) -> None:
    """A rename is one event, for the folder that was moved and for nothing in it."""
    write_package(root, "group/one")
    write_package(root, "group/two/nested")
    write_package(root, "stays")
    watcher = await watch()
    await eventually(lambda: shelf.number("nested"))
    (root / "group").rename(tmp_path / "group")
    await eventually(lambda: (shelf.number("one"), shelf.number("nested")) == (None, None))
    (tmp_path / "group").rename(root / "back")
    await eventually(lambda: (shelf.number("one"), shelf.number("nested")) == (2, 2))
    assert sorted(await shelf.store.ledger(watcher.source)) == ["back/one", "back/two/nested", "stays"]
    assert shelf.number("stays") == 1


async def test_a_renamed_folder_keeps_its_skill_in_service(shelf: Shelf, root: Path, watch: Watch) -> None:
    write_package(root, "demo")
    watcher = await watch()
    (root / "demo").rename(root / "moved")
    async with asyncio.timeout(WAIT_S):
        while list(await shelf.store.ledger(watcher.source)) != ["moved"]:  # noqa: ASYNC110  # the same
            await asyncio.sleep(0.02)
    await shelf.feed.tail()
    assert shelf.number("demo")


async def test_an_edit_of_a_nested_skill_is_a_version_of_its_parent_too(shelf: Shelf, root: Path, watch: Watch) -> None:
    write_package(root, "parent")
    write_package(root, "parent/skills/child")
    await watch()
    write_package(root, "parent/skills/child", body="Edited.")
    await eventually(lambda: (shelf.number("parent"), shelf.number("child")) == (2, 2))


async def test_a_root_below_a_folder_that_would_be_litter_is_watched(
    shelf: Shelf, tmp_path: Path, watch: Watch
) -> None:
    root = tmp_path / "node_modules" / "team" / "skills"
    root.mkdir(parents=True)
    await watch(root)
    write_package(root, "demo")
    await eventually(lambda: shelf.number("demo") == 1)


async def test_a_root_that_is_a_link_is_watched(shelf: Shelf, root: Path, tmp_path: Path, watch: Watch) -> None:
    (tmp_path / "link").symlink_to(root)
    await watch(tmp_path / "link")
    write_package(root, "demo")
    await eventually(lambda: shelf.number("demo") == 1)
    write_package(root, "demo", body="Edited.")
    await settled(shelf, "demo", "Edited.")


async def test_polling_follows_as_well(shelf: Shelf, root: Path, watch: Watch) -> None:
    write_package(root, "demo")
    await watch(polling=True)
    write_package(root, "demo", body="Edited, and longer.")
    write_package(root, "new")
    await settled(shelf, "demo", "Edited, and longer.")
    await eventually(lambda: shelf.number("new") == 1)
    for body in ("Again.", "And again."):  # within one second
        write_package(root, "new", body=body)
        await settled(shelf, "new", body)
    shutil.rmtree(root / "new")
    await eventually(lambda: shelf.number("new") is None)


async def test_a_name_that_the_system_s_events_cannot_be_told_with_has_the_folder_polled(
    shelf: Shelf, root: Path, watch: Watch
) -> None:
    """watchfiles ends with an error for it, and again for every look at that file, our own included."""
    write_package(root, "demo")
    watcher = await watch()
    write_files(root / os.fsdecode(b"odd\xff"), {"SKILL.md": skill_md("odd")})
    await eventually(lambda: watcher.no_events)
    assert "decode" in watcher.no_events
    write_package(root, "new")
    write_package(root, "demo", body="Edited.")
    await settled(shelf, "demo", "Edited.")
    await eventually(lambda: shelf.number("new") == 1)
    shutil.rmtree(root / "new")
    await eventually(lambda: shelf.number("new") is None)
    assert watcher.state == "watching"


async def test_a_replaced_root_is_held_and_watched_anew(shelf: Shelf, root: Path, watch: Watch) -> None:
    """The operating system watches the folder that was there, not the one that takes its name."""
    write_package(root, "demo")
    watcher = await watch()
    shutil.move(root, root.with_name("away"))
    await eventually(lambda: watcher.held)
    assert shelf.number("demo") == 1
    shutil.copytree(root.with_name("away"), root)
    await eventually(lambda: not watcher.held and watcher.state == "watching")
    write_package(root, "demo", body="In the new folder.")
    await settled(shelf, "demo", "In the new folder.")


async def test_of_two_watchers_one_scans_and_the_other_takes_over(shelf: Shelf, root: Path, tmp_path: Path) -> None:
    async with open_shelf(tmp_path / "data") as other:
        first = FolderWatcher(shelf.scan(root), shelf.store, replica="one", polling=False)
        second = FolderWatcher(other.scan(root), other.store, replica="two", polling=False)
        first.start()
        await eventually(lambda: first.state == "watching")
        second.start()
        await eventually(lambda: second.state == "waiting")
        write_package(root, "demo")
        await eventually(lambda: (shelf.number("demo"), other.number("demo")) == (1, 1))
        assert not second.scanned.is_set()
        await first.close()
        write_package(root, "demo", body="Meanwhile.")
        await settled(other, "demo", "Meanwhile.")
        await second.close()
        await eventually(lambda: (shelf.number("demo"), other.number("demo")) == (2, 2))
