import json
import math
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.skills.frontmatter import DEPTH_MAX, FRONTMATTER_BYTES_MAX, FrontmatterError, line_of, parse, split
from tests.support.cost import cpu_s, floor_s

FRAGMENTS = (
    *("a:", "name:", "- ", "? ", ": ", "[", "]", "{", "}", ",", "|", ">", "'", '"', "\\", "#", "---", "..."),
    *("&a", "*a", "!", "!!int", "!!bool", "!!float", "!!timestamp", "!!set", "!!str", "!!binary", "%YAML", "=", "<<"),
    *("0x", "0o7", "+1", "-", "1:2", "1_0", "1e999", ".nan", ".inf", "2026-01-00", "2026-01-01", "true", "on", "~"),
    *("2026-", "0000", "-13", "-1", "-00", "T", "t", "24", ":60", ":00", ".", "Z", "+24:00", "-05:99"),
    *(" ", "\n", "\n  ", "\t", "\r", "\x00", "\x07", "\x85", "\u2028", "\ufeff", "\ud800", "\U0010ffff"),
)


def refusal(source: str) -> FrontmatterError:
    with pytest.raises(FrontmatterError) as refused:
        parse(source)
    return refused.value


def test_split_gives_the_yaml_and_the_body() -> None:
    assert split("---\nname: a\n---\n\nbody\n") == ("name: a\n", "body\n")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff---\nname: a\n---\nbody",
        "---\r\nname: a\r\n---\r\nbody",
        "\ufeff---\r\nname: a\r\n---\r\n\r\nbody",
        "--- \nname: a\n---\t\nbody",
    ],
    ids=["byte order mark", "CRLF", "both", "white space after the dashes"],
)
def test_what_editors_add_changes_nothing(text: str) -> None:
    assert split(text) == ("name: a\n", "body")


def test_empty_frontmatter_is_found_and_is_no_mapping() -> None:
    assert split("---\n---\nbody") == ("", "body")
    assert refusal("").line == 2


def test_a_line_that_only_begins_with_dashes_does_not_close() -> None:
    assert split("---\na: |\n  x\n----\n--- b\n---") == ("a: |\n  x\n----\n--- b\n", "")


@pytest.mark.parametrize("text", ["", "# Title\n", "name: a\n---\n", " ---\na: b\n---\n", "----\na: b\n---\n"])
def test_missing_frontmatter_is_said_with_line_one(text: str) -> None:
    with pytest.raises(FrontmatterError, match="does not start") as refused:
        split(text)
    assert refused.value.line == 1
    assert "description" in refused.value.hint


@pytest.mark.parametrize("text", ["---\n", "---\nname: a\n", "---\nname: a\n ---\n", "---\nname: a\n----\n"])
def test_unclosed_frontmatter_is_said(text: str) -> None:
    with pytest.raises(FrontmatterError, match="not closed"):
        split(text)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("2026-11-21", "2026-11-21"),
        ("2024-02-29", "2024-02-29"),
        ("2026-11-21T07:35:52Z", "2026-11-21T07:35:52Z"),
        ("2026-1-2 3:04:05.123456789 -5", "2026-1-2 3:04:05.123456789 -5"),
        ("2026-11-21\n  07:35:52 +05:45", "2026-11-21 07:35:52 +05:45"),
        ("2026-1-40", "2026-1-40"),
        ("2026-01-00-rc", "2026-01-00-rc"),
        ("20260100", 20260100),
        ("'2026-01-00'", "2026-01-00"),
        ('"2026-01-00"', "2026-01-00"),
        ("!!str 2026-01-00", "2026-01-00"),
        ("|-\n  2026-01-00\n", "2026-01-00"),
        ("12:30", "12:30"),
        ("on", "on"),
        ("no", "no"),
        ("012", "012"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("=", "="),
        ("<<", "<<"),
        (".nan", ".nan"),
        ("-.inf", "-.inf"),
        ("1e999", "1e999"),
        ("999999999999999", 999999999999999),
        ("9999999999999999", "9999999999999999"),
        ("-12", -12),
        ("1.50", 1.5),
        ("-1.5e-3", -0.0015),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("!!str 12", "12"),
        ("'12'", "12"),
        ("[1, {b: c}]", [1, {"b": "c"}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_value_is_what_json_writes_or_its_own_text(source: str, value: object) -> None:
    found = parse(f"d: {source}\n")["d"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("number", ["9" * 6000, "0x" + "f" * 8000, "1:" * 4000 + "1", "1." + "9" * 8000])
def test_numbers_beyond_what_python_converts_are_no_surprise(number: str) -> None:
    value = parse(f"n: {number}")["n"]
    assert value == number or math.isclose(value, 2)


def test_keys_stay_the_text_they_were() -> None:
    assert parse("true: a\n~: b\n1.50: c\non: d\n2026-01-01: e\n") == {
        "true": "a",
        "~": "b",
        "1.50": "c",
        "on": "d",
        "2026-01-01": "e",
    }


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("a: b\nc: d: e\n", 3, "mapping values"),
        ("a: b\n\tc: d\n", 3, "broken YAML"),
        ("a: b\nc:\n\td: e\n", 4, "cannot start any token"),
        ("a: [1, 2\nb: c\n", 3, ""),
        ("a: 'b\n", 3, "unexpected end"),
        ("x: 1\ny: &anchor 2\n", 3, "anchors"),
        ("x: 1\ny: 2\nz: *anchor\n", 4, "anchors"),
        ("x: 1\ny: !!bool maybe\n", 3, "tags"),
        ("x: !!int ''\n", 2, "tags"),
        ("x: !!timestamp never\n", 2, "tags"),
        ("x: !!python/object/apply:os.system [id]\n", 2, "tags"),
        ("x: 1\n? [a, b]\n: c\n", 3, "not text"),
        ("name: a\nb: c\nname: d\n", 4, "twice"),
        ("x:\n  y: 1\n  y: 2\n", 4, "twice"),
        ("- a\n", 2, "not a mapping"),
        ("just words\n", 2, "not a mapping"),
        ("a: 1\n--- \nb: 2\n", 3, "another document"),
        ("a: \x07\n", 1, "control characters"),
        ("a: \ud800\n", 1, "surrogates"),
    ],
)
def test_a_refusal_names_the_line_in_the_file(source: str, line: int, reason: str) -> None:
    error = refusal(source)
    assert error.line == line
    assert reason in error.message


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-00", "2026-00-01", "2026-13-01", "2026-02-30", "2023-02-29", "0000-01-01"),
        *("2026-1-32 1:00:00", "2026-01-01T24:00:00", "2026-01-01t00:60:00Z", "2026-01-01 00:00:61.5"),
        *("2026-01-01 00:00:00 +24:00", "2026-01-01T00:00:00-05:60"),
    ],
)
@pytest.mark.parametrize("place", ["d: {}", "{}: d", "m:\n  k: {}", "m:\n  {}: k", "m:\n  - {}", "m: [1, {{k: [{}]}}]"])
def test_what_has_the_form_of_a_date_and_is_none_is_refused_unless_quoted(text: str, place: str) -> None:
    """PyYAML raises `ValueError` for it, wherever it stands (research T8)."""
    source = f"a: b\n{place}\n"
    error = refusal(source.format(text))
    assert error.message.startswith(f"{text} is no date")
    assert error.line == 3 + place.count("\n")
    assert "put it in quotes" in error.hint
    assert parse(source.format(f"'{text}'"))


def test_nesting_ends_at_the_stated_depth() -> None:
    def nested(levels: int) -> str:
        return "a: " + "[" * (levels - 1) + "]" * (levels - 1)

    assert parse(nested(DEPTH_MAX))
    assert "nested deeper" in refusal(nested(DEPTH_MAX + 1)).message


def test_the_bound_is_in_bytes() -> None:
    room = FRONTMATTER_BYTES_MAX - len("a: ")
    assert parse("a: " + "x" * room)
    assert "over" in refusal("a: " + "x" * (room + 1)).message
    assert "over" in refusal("a: " + "é" * (room // 2 + 1)).message


def test_line_of_a_key_counts_from_the_top_of_the_file() -> None:
    source = "description: name: not this\nx:\n  name: nor this\nname: a\n"
    assert line_of(source, "name") == 5
    assert line_of(source, "license") is None


@pytest.mark.parametrize(
    "source",
    [
        "[" * 16_000,
        "{a: " * 4000,
        "- " * 8000,
        "? " * 8000,
        "a: " * 5000,
        "a:\n" * 5000,
        "a: |\n" + " \n" * 8000,
        "'" * 16_000,
        '"' + "\\" * 16_000,
        "#" * 16_000,
        "a: [" + "1," * 8000 + "]",
        "a: {" + ",".join(f"k{at}: 1" for at in range(1800)) + "}",
        "\n".join(f"k{at}: &a [*a, *a]" for at in range(800)),
        "a: 2026-01-01" + " " * 16_000 + "x",
        "a: 2026-01-01 00:00:00." + "0" * 16_000 + "x",
        "a: [" + "2026-01-01," * 1400 + "]",
    ],
    ids=range(16),
)
def test_hostile_text_of_full_size_costs_little(source: str) -> None:
    """Reliability T8: 50 ms, which is some six times the floor."""

    def parsed() -> None:
        with suppress(FrontmatterError):
            parse(source)

    assert cpu_s(parsed, tries=3) < 12 * floor_s()


def assert_json(value: Any) -> None:
    """Survives a round through JSON unchanged, and is nothing that JSON only pretends to write."""
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def read(text: str) -> None:
    try:
        fields = parse(split(text)[0])
    except FrontmatterError:
        return
    assert isinstance(fields, dict)
    assert_json(fields)


any_text = st.text(st.characters(exclude_categories=()), max_size=200)
# Of the form of a date, one or two numbers of it beyond what there is.
date_like = st.builds(
    "".join,
    st.tuples(
        st.from_regex(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", fullmatch=True),
        st.just("") | st.from_regex(r"([Tt]|[ \t]{1,3})[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]{0,9})?", fullmatch=True),
        st.just("") | st.from_regex(r"[ \t]{0,2}(Z|[-+][0-9]{1,2}(:[0-5][0-9])?)", fullmatch=True),
    ),
)
yaml_like = st.lists(st.sampled_from(FRAGMENTS) | date_like, max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(any_text | yaml_like | date_like)
def test_any_text_gives_json_or_a_refusal(source: str) -> None:
    read(source)
    read(f"---\n{source}\n---\n")
    read(f"---\nkey: {source}\n---\n")


@settings(max_examples=400, deadline=None)
@given(date_like)
def test_a_date_is_refused_where_pyyaml_fails(text: str) -> None:
    """Its own constructor is the judge: what it makes a date of stays text, what it raises for is refused."""
    try:
        yaml.load(f"k: {text}", yaml.CSafeLoader)
    except (ValueError, yaml.YAMLError):
        refusal(f"k: {text}")
    else:
        assert parse(f"k: {text}") == {"k": text}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_json_or_a_refusal(source: bytes) -> None:
    read(f"---\n{source.decode(errors='replace')}\n---\n")
    read(source.decode("latin-1"))
