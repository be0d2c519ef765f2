"""YAML frontmatter of a SKILL.md, read so that hostile bytes cost little and never surprise.

Any bytes give a mapping of JSON values or `FrontmatterError`. Anchors and aliases are refused
(nine levels of them are a gigabyte of JSON), as is nesting beyond 32 and text beyond 16 KiB.
Dates stay the text they were: `2026-01-00` is a valid scalar and no valid date.
"""

import math
from typing import Any

import yaml

FRONTMATTER_BYTES_MAX = 16 * 1024
DEPTH_MAX = 32
_INT_DIGITS_MAX = 15  # beyond 2**53 a JSON reader in JavaScript sees another number


class FrontmatterError(Exception):
    """`line` counts from 1 in the file, None when the whole is meant."""

    def __init__(self, message: str, line: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


class _Loader(yaml.CSafeLoader):
    """Safe loading without the timestamp type."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def split(text: str) -> tuple[str, str]:
    """The frontmatter's YAML and the body after it. Raises `FrontmatterError` when there is none."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.startswith("---\n"):
        raise FrontmatterError(
            "SKILL.md does not start with frontmatter",
            1,
            "begin the file with a line `---`, `name:` and `description:`",
        )
    end = text.find("\n---", 3)
    while end != -1 and text[end + 4 : end + 5] not in ("", "\n", " "):
        end = text.find("\n---", end + 4)
    if end == -1:
        raise FrontmatterError("the frontmatter is not closed", 1, "end it with a line `---`")
    return text[4 : end + 1], text[end + 4 :].lstrip("\n")


def parse(source: str) -> dict[str, Any]:
    """The frontmatter as JSON values, all fields kept. Raises `FrontmatterError`."""
    if len(source.encode()) > FRONTMATTER_BYTES_MAX:
        raise FrontmatterError(f"the frontmatter is over {FRONTMATTER_BYTES_MAX} bytes", 1, "move text into the body")
    try:
        _refuse_bombs(source)
        value = yaml.load(source, _Loader)  # _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # + 2: marks count from 0, and the opening `---` is line 1 of the file
        raise FrontmatterError(
            f"broken YAML: {error.problem or error}",
            mark.line + 2 if mark else None,
            "quote values that hold a colon or start with a special character",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontmatterError(f"broken YAML: {error}", 1) from error
    if not isinstance(value, dict):
        raise FrontmatterError("the frontmatter is not a mapping", 2, "write `key: value` lines")
    return {str(key): _jsonable(item) for key, item in value.items()}


def _refuse_bombs(source: str) -> None:
    depth = 0
    for event in yaml.parse(source, yaml.CSafeLoader):
        line = event.start_mark.line + 2 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FrontmatterError("YAML anchors and aliases are not allowed", line, "write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise FrontmatterError(f"nested deeper than {DEPTH_MAX}", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**_INT_DIGITS_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
