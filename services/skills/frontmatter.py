"""YAML frontmatter of a SKILL.md, read so that hostile bytes cost little and never surprise.

Any text gives a mapping of JSON values or `FrontmatterError`. Anchors and aliases are refused
(nine levels of them are a gigabyte of JSON), as are tags, keys that stand twice, nesting beyond
32, text beyond 16 KiB, and `2026-01-00` without quotes: it has the form of a date, is none, and
hosts with PyYAML's own rules raise `ValueError` for it. Only what JSON writes too becomes a
number, a truth value or null; every other scalar, dates included, stays the text it was: those
rules make 750 of `12:30` and `true` of `on`.
"""

import re
from typing import Any

FRONTMATTER_BYTES_MAX = 16 * 1024
DEPTH_MAX = 32

_OPENING = re.compile(r"---[ \t]*\n")
_CLOSING = re.compile(r"^---[ \t]*$", re.MULTILINE)


class FrontmatterError(Exception):
    """`line` counts from 1 in the file, None when the whole is meant."""

    def __init__(self, message: str, line: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


def split(text: str) -> tuple[str, str]:
    """The frontmatter's YAML and the body after it. Raises `FrontmatterError` when there is none."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    opening = _OPENING.match(text)
    if opening is None:
        raise FrontmatterError(
            "SKILL.md does not start with frontmatter",
            1,
            "begin the file with a line `---`, `name:` and `description:`",
        )
    closing = _CLOSING.search(text, opening.end())
    if closing is None:
        raise FrontmatterError("the frontmatter is not closed", 1, "end it with a line `---`")
    return text[opening.end() : closing.start()], text[closing.end() :].lstrip("\n")


def parse(source: str) -> dict[str, Any]:
    """The frontmatter as JSON values, all fields kept. Raises `FrontmatterError`."""
    if len(source.encode(errors="surrogatepass")) > FRONTMATTER_BYTES_MAX:
        raise FrontmatterError(f"the frontmatter is over {FRONTMATTER_BYTES_MAX} bytes", 1, "move text into the body")
    # 25 ms and its bindings, for a start that finds nothing to read.
    from services.skills.yaml_values import mapping_of  # noqa: PLC0415

    return mapping_of(source)


def line_of(source: str, key: str) -> int | None:
    """The line in the file on which a top-level key of the frontmatter stands, None when it is not there."""
    found = re.search(rf"^{re.escape(key)}[ \t]*:", source, re.MULTILINE)
    return source.count("\n", 0, found.start()) + 2 if found else None
