import hashlib
from typing import Any

import pytest

from services.models import FileEntry, Version
from services.skills.compare import FILE_BYTES_MAX, TEXT_BYTES_MAX, compare

pytestmark = pytest.mark.anyio


def version(number: int, frontmatter: dict[str, Any], files: dict[str, bytes]) -> Version:
    manifest = tuple(FileEntry(path, hashlib.sha256(body).hexdigest(), len(body)) for path, body in files.items())
    return Version(number, f"sha256:{number}", "strict", "d", frontmatter, manifest, (), (), "", "ann", "upload")


async def compared(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, Any]:
    contents = {hashlib.sha256(body).hexdigest(): body for body in (*old.values(), *new.values())}

    async def read(entry: FileEntry) -> bytes:
        assert entry.size <= FILE_BYTES_MAX, "what is not shown is not read"
        return contents[entry.sha256]

    return await compare(version(1, {"a": 1, "b": None}, old), version(2, {"a": 2, "c": None}, new), read)


async def test_added_removed_and_changed_files_are_unified_diffs_and_equal_ones_are_left_out() -> None:
    found = await compared(
        {"same": b"x\n", "old": b"gone\n", "text": b"one\ntwo\n"}, {"same": b"x\n", "new": b"here", "text": b"one\n2\n"}
    )
    assert [(file["path"], file["change"]) for file in found["files"]] == [
        ("new", "added"),
        ("old", "removed"),
        ("text", "changed"),
    ]
    assert found["files"][0]["diff"] == "--- /dev/null\n+++ new\n@@ -0,0 +1 @@\n+here\n\\ No newline at end of file\n"
    assert found["files"][2]["diff"] == "--- text\n+++ text\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"


async def test_frontmatter_changes_tell_a_member_that_is_null_from_one_that_is_absent() -> None:
    found = await compared({}, {})
    assert found["frontmatter"] == [
        {"key": "a", "from": 1, "to": 2},
        {"key": "b", "from": None, "to": None},
        {"key": "c", "from": None, "to": None},
    ]


async def test_what_is_no_text_says_so() -> None:
    found = await compared({"a": b"\xff\xfe", "b": b"x\0"}, {"a": b"text", "b": b"y"})
    assert [file["binary"] for file in found["files"]] == [True, True]
    assert all("diff" not in file for file in found["files"])


async def test_what_is_too_large_is_named_and_neither_read_nor_shown() -> None:
    big = b"x" * (FILE_BYTES_MAX + 1)
    most = {f"f{n}": b"line\n" * (TEXT_BYTES_MAX // 14) for n in range(4)}
    found = await compared({"big": b""}, {"big": big, **most})
    assert found["truncated"] is True
    assert [file.get("too_large", False) for file in found["files"]] == [True, False, False, True, True]
    assert sum(len(file.get("diff", "")) for file in found["files"]) <= TEXT_BYTES_MAX
