"""A watched folder that is found at another path than before, or beside another one that holds the same."""

import shutil
from pathlib import Path

import pytest

from tests.integration.test_skills_scan import restarted, see
from tests.support.packages import OWNER, Shelf, skill_md, write_package, zip_of

pytestmark = pytest.mark.anyio


async def test_a_folder_that_was_moved_goes_on_taking_its_skills_out_of_service(shelf: Shelf, root: Path) -> None:
    for name in ("gone", "kept", "renamed", "uploaded"):
        write_package(root, name)
    await restarted(shelf, root)
    root = Path(shutil.move(root, root.with_name("moved")))
    scan = await restarted(shelf, root)
    assert [shelf.number(name) for name in ("gone", "kept", "renamed", "uploaded")] == [1, 1, 1, 1]

    files = {"SKILL.md": skill_md("uploaded", body="By hand.")}
    await shelf.catalog.publish_zip(zip_of(files), owner=OWNER, created_by="ada")
    (root / "renamed" / "SKILL.md").write_bytes(skill_md("renamed-too"))
    await see(shelf, scan, "renamed")
    for name in ("gone", "uploaded"):
        shutil.rmtree(root / name)
    await see(shelf, scan, "gone", "uploaded")

    assert [shelf.number(name) for name in ("gone", "renamed")] == [None, None]
    assert [shelf.number(name) for name in ("kept", "renamed-too", "uploaded")] == [1, 1, 2]


async def test_what_another_folder_gives_that_is_watched_stays(shelf: Shelf, root: Path) -> None:
    write_package(root, "demo")
    first = await restarted(shelf, root)
    shutil.copytree(root, other := root.with_name("other"))
    scan = await restarted(shelf, other)
    assert await shelf.store.acquire_lease(first.source, "another replica", 60)
    shutil.rmtree(other / "demo")
    await see(shelf, scan, "demo")
    assert shelf.number("demo") == 1
