"""YAML to JSON values, under the rules that `frontmatter.py` states; imported with the first package that is read."""

import math
import re
from datetime import date, time
from typing import Any

import yaml

from services.skills.frontmatter import DEPTH_MAX, FrontmatterError

_TAG = "tag:yaml.org,2002:"
# The form that YAML 1.1 (yaml.org/type/timestamp) gives a date, or a date with a time and an offset from UTC.
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})\Z"
    r"|([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?:[Tt]|[ \t]+)([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+]([0-9]{1,2})(?::([0-9]{2}))?))?\Z"
)


class _Loader(yaml.CSafeLoader):
    """Composes nodes; their values are made here, not by PyYAML's constructors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the base class's own shape


for _name, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    # 15 digits: beyond 2**53 a JSON reader in JavaScript sees another number
    ("int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})\Z"), list("-+0123456789")),
    (
        "float",
        re.compile(r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z"),
        list("-+.0123456789"),
    ),
    ("timestamp", _TIMESTAMP, list("0123456789")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _pattern, _first)


def mapping_of(source: str) -> dict[str, Any]:
    """Raises `FrontmatterError`."""
    try:
        _refuse_bombs(source)
        root = yaml.compose(source, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # + 2: marks count from 0, and the opening `---` is line 1 of the file
        raise FrontmatterError(
            f"broken YAML: {error.problem or error}",
            mark.line + 2 if mark else None,
            "quote values that hold a colon or start with a special character",
        ) from error
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise FrontmatterError(f"broken YAML: {error}", 1) from error
    if not isinstance(root, yaml.MappingNode):
        raise FrontmatterError("the frontmatter is not a mapping", 2, "write `key: value` lines")
    return _mapping(root)


def _refuse_bombs(source: str) -> None:
    depth = 0
    for event in yaml.parse(source, yaml.CSafeLoader):
        line = event.start_mark.line + 2 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FrontmatterError("YAML anchors and aliases are not allowed", line, "write the value out")
        if getattr(event, "tag", None) not in (None, "!", f"{_TAG}str"):
            raise FrontmatterError("YAML tags are not allowed", line, "write the value without it")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise FrontmatterError(f"nested deeper than {DEPTH_MAX}", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 2
        if not isinstance(key, yaml.ScalarNode):
            raise FrontmatterError("a key is not text", line, "write `key: value` lines")
        _refuse_no_date(key)
        if key.value in values:
            # Readers differ in which of the two they take, and some refuse the file.
            raise FrontmatterError(f"the key {key.value[:64]!r} stands twice", line, "remove one of them")
        values[key.value] = _value(value)
    return values


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    _refuse_no_date(node)
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            number = float(text)
            return number if math.isfinite(number) else text
        case _:
            return text


def _refuse_no_date(node: yaml.Node) -> None:
    """Hosts that read YAML 1.1 fail on the whole file for one such scalar. Quoted ones, and those that
    are marked as text, were not resolved to a timestamp."""
    if node.tag != f"{_TAG}timestamp":
        return
    found = _TIMESTAMP.match(node.value)
    assert found is not None  # the resolver took the same pattern for this text
    *days, hour, minute, second, offset_h, offset_min = (int(part or 0) for part in found.groups())
    try:
        date(*(days[:3] if found[1] else days[3:]))
        time(hour, minute, second)
        time(offset_h, offset_min)  # the offset from UTC is less than a day, too
    except ValueError:
        raise FrontmatterError(
            f"{node.value[:64]} is no {'date' if found[1] else 'date and time'}",
            node.start_mark.line + 2,
            "write a date that exists, or put it in quotes if it is text",
        ) from None
