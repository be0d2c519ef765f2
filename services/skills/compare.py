"""What differs between two versions: files, their text, and the frontmatter."""

import difflib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from services.models import FileEntry, Version

# All text of one comparison; a file beyond it is named without its lines.
TEXT_BYTES_MAX = 256 * 1024
# Of one side of a file: comparing lines takes time that grows with the square of their number.
FILE_BYTES_MAX = 256 * 1024

Read = Callable[[FileEntry], Awaitable[bytes]]


async def compare(old: Version, new: Version, read: Read) -> dict[str, Any]:
    """`{from, to, files, frontmatter, truncated}`; a file is `{path, change, diff | binary | too_large}`
    with `change` one of added, removed, changed. Raises what `read` raises."""
    before = {entry.path: entry for entry in old.manifest}
    after = {entry.path: entry for entry in new.manifest}
    left = TEXT_BYTES_MAX
    files: list[dict[str, Any]] = []
    for path in sorted(before.keys() | after.keys(), key=str.encode):
        one, other = before.get(path), after.get(path)
        if one is not None and other is not None and one.sha256 == other.sha256:
            continue
        shown = await _file(path, one, other, read)
        left -= len(shown.get("diff", "").encode())
        if left < 0:
            shown = {**{key: shown[key] for key in ("path", "change")}, "too_large": True}
        files.append(shown)
    return {
        "from": {"version": old.version, "digest": old.digest},
        "to": {"version": new.version, "digest": new.digest},
        "files": files,
        "frontmatter": [*_members(old.frontmatter, new.frontmatter)],
        "truncated": any("too_large" in file for file in files),
    }


async def _file(path: str, one: FileEntry | None, other: FileEntry | None, read: Read) -> dict[str, Any]:
    change = "added" if one is None else "removed" if other is None else "changed"
    shown: dict[str, Any] = {"path": path, "change": change}
    if any(side is not None and side.size > FILE_BYTES_MAX for side in (one, other)):
        return {**shown, "too_large": True}
    old, new = [_text(await read(side)) if side is not None else "" for side in (one, other)]
    if old is None or new is None:
        return {**shown, "binary": True}
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        path if one is not None else "/dev/null",
        path if other is not None else "/dev/null",
    )
    return {**shown, "diff": "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)}


def _text(content: bytes) -> str | None:
    """None for what is no text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _members(old: dict[str, Any], new: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`{key, from, to}` of every top-level member that differs; None where there is none."""
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) or (key in old) != (key in new):
            yield {"key": key, "from": old.get(key), "to": new.get(key)}
