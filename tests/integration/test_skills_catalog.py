"""Publishing and reading through the catalog, on the real store."""

from pathlib import Path

import pytest

from services.failures import Conflict, Forbidden, Invalid, NotFound, ServiceError
from services.models import Published
from tests.support.packages import Shelf, skill_md, tool, tools_json, write_files, zip_of
from tests.support.search_parts import everyone

pytestmark = pytest.mark.anyio

GOOD = {"SKILL.md": skill_md(), "a.md": b"a"}


async def upload(
    shelf: Shelf, files: dict[str, bytes], *, activate: bool = True, if_match: str | None = None
) -> Published:
    published = await shelf.catalog.publish_zip(
        zip_of(files), owner="main", created_by="ada", activate=activate, if_match=if_match
    )
    await shelf.feed.tail()
    return published


def blobs_in(data: Path) -> int:
    return sum(1 for path in (data / "blobs").rglob("*") if path.is_file())


async def test_an_upload_is_a_version_and_the_same_again_is_none(shelf: Shelf) -> None:
    first = await upload(shelf, GOOD)
    again = await upload(shelf, GOOD)
    assert (first.version, first.changed, again.version, again.changed) == (1, True, 1, False)
    skill, version = await shelf.catalog.version("main/demo", None, everyone)
    assert (skill.id, version.created_by, version.source) == ("main/demo", "ada", "upload")
    assert await shelf.read(version, "a.md") == b"a"
    with pytest.raises(NotFound):
        await shelf.read(version, "b.md")


@pytest.mark.parametrize(
    "data",
    [b"", *map(zip_of, ({"SKILL.md": b"no frontmatter"}, {"../SKILL.md": skill_md()}, {"x": bytes(9_000_000)}))],
    ids=["no zip", "quarantined", "climbing", "bomb"],
)
async def test_a_refused_upload_writes_nothing(shelf: Shelf, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ServiceError):
        await shelf.catalog.publish_zip(data, owner="main", created_by="ada")
    assert (await shelf.store.head()).seq == 0
    assert blobs_in(tmp_path / "data") == 0


async def test_a_refused_upload_says_everything_that_is_wrong(shelf: Shelf) -> None:
    harmful = tools_json(tool(inputSchema={"type": "object", "$ref": "#"}))
    with pytest.raises(Invalid) as refused:
        await upload(shelf, {"SKILL.md": b"# none", "tools.json": harmful, "scripts/run.py": b""})
    found = refused.value.facts["diagnostics"]
    assert [(each["severity"], each["path"]) for each in found] == [("error", "SKILL.md"), ("error", "tools.json")]
    assert found[0]["line"] == 1
    for each in found:
        assert f"{each['path']}:{each['line']}: {each['message']}" in refused.value.message
    assert found[0]["hint"] in refused.value.message


async def test_a_refused_upload_without_frontmatter_is_not_said_to_have_no_name(shelf: Shelf) -> None:
    with pytest.raises(Invalid) as refused:
        await upload(shelf, {"SKILL.md": b"---\nname: named\ndescription: a: b: c\n---\n"})
    assert [each["message"][:11] for each in refused.value.facts["diagnostics"]] == ["broken YAML"]


async def test_a_refused_upload_does_not_give_its_mere_warnings_as_the_reason(shelf: Shelf) -> None:
    text = b"---\nname: Odd Name\ndescription: Does.\n---\n"
    with pytest.raises(Invalid) as refused:
        await upload(shelf, {"skill.md": text})
    assert [each["severity"] for each in refused.value.facts["diagnostics"]] == ["error", "warning"]
    assert "must be called SKILL.md" in refused.value.message
    assert "hyphens" not in refused.value.message


async def test_an_upload_against_another_digest_is_a_conflict(shelf: Shelf) -> None:
    first = await upload(shelf, GOOD)
    second = await upload(shelf, {**GOOD, "a.md": b"b"}, if_match=first.digest)
    with pytest.raises(Conflict):
        await upload(shelf, {**GOOD, "a.md": b"c"}, if_match=first.digest)
    assert (shelf.number("demo"), second.version) == (2, 2)


async def test_an_upload_that_is_not_to_be_active_waits(shelf: Shelf) -> None:
    await upload(shelf, GOOD)
    await upload(shelf, {**GOOD, "a.md": b"b"}, activate=False)
    assert shelf.number("demo") == 1
    _, second = await shelf.catalog.version("main/demo", 2, everyone)
    assert await shelf.read(second, "a.md") == b"b"


async def test_rollback_and_deletion_keep_every_version(shelf: Shelf) -> None:
    await upload(shelf, GOOD)
    await upload(shelf, {**GOOD, "a.md": b"b"})
    await shelf.catalog.rollback("main/demo", 1, "ada", everyone)
    await shelf.feed.tail()
    assert shelf.number("demo") == 1
    await shelf.catalog.delete("main/demo", "ada", everyone)
    await shelf.feed.tail()
    with pytest.raises(NotFound, match="no active version"):
        await shelf.catalog.version("main/demo", None, everyone)
    assert [version.version for version in await shelf.catalog.versions("main/demo", everyone)] == [2, 1]
    third = await upload(shelf, GOOD)
    assert third.version == 3


async def test_a_skill_that_a_caller_may_not_see_does_not_exist_for_it(shelf: Shelf) -> None:
    await upload(shelf, GOOD)
    for attempt in (
        shelf.catalog.rollback("main/demo", 1, "eve", lambda _: False),
        shelf.catalog.delete("main/demo", "eve", lambda _: False),
        shelf.catalog.versions("main/demo", lambda _: False),
        shelf.catalog.version("main/demo", 1, lambda _: False),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert shelf.number("demo") == 1


async def test_quarantined_files_are_never_given_out(shelf: Shelf, tmp_path: Path) -> None:
    write_files(tmp_path / "skills" / "demo", {"SKILL.md": b"broken"})
    await shelf.scan(tmp_path / "skills").everything()
    await shelf.feed.tail()
    _, version = await shelf.catalog.version("main/demo", 1, everyone)
    with pytest.raises(Forbidden):
        await shelf.read(version, "SKILL.md")
    with pytest.raises(Invalid):
        await shelf.catalog.rollback("main/demo", 1, "ada", everyone)
