"""How editors, git and copies change a watched folder, done as they do it."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.skills.watcher import FolderWatcher
from tests.support.packages import WAIT_S, Shelf, eventually, open_shelf, skill_md, write_files, write_package

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "skills"
    write_package(folder, "demo")
    return folder


@pytest.fixture
async def shelf(tmp_path: Path, root: Path) -> AsyncIterator[Shelf]:
    """A catalog whose watcher has taken `demo`."""
    async with open_shelf(tmp_path / "data") as opened:
        watcher = FolderWatcher(opened.scan(root), opened.store, replica="one", polling=False)
        watcher.start()
        async with asyncio.timeout(WAIT_S):
            await watcher.scanned.wait()
        await eventually(lambda: opened.number("demo") == 1)
        yield opened
        await watcher.close()


async def settled(shelf: Shelf, text: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while text not in await shelf.text("demo"):  # noqa: ASYNC110  # files have no event to wait for
            await asyncio.sleep(0.005)


def jetbrains(file: Path, content: bytes) -> None:
    """Safe write: a whole new file, the old one moved aside, the new one in its place."""
    new, old = file.with_name(f"{file.name}___jb_tmp___"), file.with_name(f"{file.name}___jb_old___")
    new.write_bytes(content)
    file.rename(old)
    new.rename(file)
    old.unlink()


def emacs(file: Path, content: bytes) -> None:
    """A lock that is a dangling link, an autosave, a backup by rename, then the file anew."""
    lock, autosave = file.with_name(f".#{file.name}"), file.with_name(f"#{file.name}#")
    lock.symlink_to("somebody@somewhere.1234:5678")
    autosave.write_bytes(content)
    file.rename(file.with_name(f"{file.name}~"))
    file.write_bytes(content)
    autosave.unlink()
    lock.unlink()


def gedit(file: Path, content: bytes) -> None:
    stream = file.with_name(".goutputstream-A1B2C3")
    stream.write_bytes(content)
    stream.replace(file)


def sed(file: Path, content: bytes) -> None:
    text = content.decode().splitlines()[-1]
    subprocess.run(["sed", "-i", f"$ s/.*/{text}/", str(file)], check=True)


@pytest.mark.parametrize("save", [jetbrains, emacs, gedit, sed])
async def test_a_save_is_one_version_of_the_saved_files_alone(
    shelf: Shelf, root: Path, save: Callable[[Path, bytes], None]
) -> None:
    for number, body in enumerate(("Once.", "Twice."), start=2):
        save(root / "demo" / "SKILL.md", skill_md("demo", body=body))
        await settled(shelf, body)
        active = shelf.active("demo")
        assert active is not None
        assert (active.version, active.grade) == (number, "strict")
        assert [entry.path for entry in active.manifest] == ["SKILL.md"]


async def test_what_is_written_without_a_pause_is_taken_all_the_same(shelf: Shelf, root: Path) -> None:
    log, stop = root / "demo" / "log.txt", asyncio.Event()

    async def write_on() -> None:
        while not stop.is_set():
            with log.open("a") as file:
                file.write("x\n")
            await asyncio.sleep(0.002)  # never as long as the quiet time

    async with asyncio.TaskGroup() as group:
        group.create_task(write_on())
        await eventually(lambda: (shelf.number("demo") or 0) >= 3)
        stop.set()


async def test_a_checkout_of_many_ends_in_the_content_of_the_branch(shelf: Shelf, root: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    names = [f"s{at:02}" for at in range(30)]
    git("init", "-b", "one")
    for name in names:
        write_package(root, name, body="On branch one.")
    git("add", ".")
    git("commit", "-m", "one")
    await eventually(lambda: all(shelf.number(name) for name in names))
    git("checkout", "-b", "two")
    shutil.rmtree(root / names[0])
    for name in names[1:]:
        write_package(root, name, body="On branch two.")
    write_package(root, "only-two")
    git("add", ".")
    git("commit", "-m", "two")
    git("checkout", "one")
    git("checkout", "two")

    async with asyncio.timeout(2 * WAIT_S):
        for name in names[1:]:
            while "On branch two." not in await shelf.text(name):  # noqa: ASYNC110  # files have no event
                await asyncio.sleep(0.01)
    await eventually(lambda: shelf.number("only-two") is not None and shelf.number(names[0]) is None)
    assert shelf.skill(".git") is None


async def test_a_folder_replaced_by_a_link_leaves_service_and_nothing_behind_the_link_is_read(
    shelf: Shelf, root: Path, tmp_path: Path
) -> None:
    elsewhere = write_files(tmp_path / "elsewhere", {"SKILL.md": skill_md("demo", body="Behind the link.")})
    shutil.rmtree(root / "demo")
    (root / "demo").symlink_to(elsewhere)
    await eventually(lambda: shelf.number("demo") is None)
    assert [version.version for version in await shelf.store.versions("main/demo")] == [1]


async def test_a_half_written_folder_is_taken_once_it_is_whole(shelf: Shelf, root: Path) -> None:
    """As `cp -r` of a large package: SKILL.md comes first, what it names a while later."""
    folder = write_package(root, "copied")
    for at in range(6):
        await asyncio.sleep(0.1)  # time itself: less than a new folder's quiet time, more than an edit's
        (folder / f"part-{at}.md").write_text("x" * 1000)
        assert shelf.number("copied") is None
    await eventually(lambda: shelf.number("copied") == 1)
    active = shelf.active("copied")
    assert active is not None
    assert len(active.manifest) == 7
