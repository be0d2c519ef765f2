from typing import Any

import pytest

from services.execution.schemas import ToolSchemas
from services.failures import Invalid


def _problem(schema: dict[str, Any], value: Any) -> str | None:
    return ToolSchemas().problem("sha256:0", "tool", "in", schema, value)


def test_a_problem_says_where() -> None:
    schema = {"properties": {"items": {"type": "array", "items": {"type": "object", "required": ["price"]}}}}
    assert _problem(schema, {"items": [{"price": 1}]}) is None
    problem = _problem(schema, {"items": [{"price": 1}, {}]})
    assert problem is not None
    assert problem.startswith("$.items[1]: 'price' is a required property")


def test_references_inside_the_schema_work() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert _problem(schema, {"a": 1}) is None
    assert _problem(schema, {"a": "x"}) is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"allOf": [{"$dynamicRef": "other.json#x"}]},
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "(a+)+$"}}},
        {"properties": {"a": {"pattern": "(a|aa)+$"}}},
        {"properties": {"a": {"pattern": "a*a*a*a*$"}}},
        {"properties": {"a": {"pattern": "(?:x{2,}){2,}"}}},
        {"properties": {"a": {"pattern": "["}}},
        {"patternProperties": {"^a": {}}},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_reaches_out_or_may_stall_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        _problem(schema, {"a": "x"})
    assert refused.value.code == "bad_schema"


@pytest.mark.parametrize(
    "pattern", ["^[a-z0-9]+(-[a-z0-9]{1,8})?$", r"^\d{4}-\d{2}-\d{2}$", r"^[+*(){}\]]+$", r"^\(a\)+$"]
)
def test_plain_patterns_are_evaluated(pattern: str) -> None:
    assert _problem({"properties": {"a": {"pattern": pattern}}}, {"a": "\n"}) is not None


def test_a_pattern_is_matched_against_short_strings_alone() -> None:
    schema = {"properties": {"a": {"pattern": "^a*a*a*$"}}}
    assert _problem(schema, {"a": "a" * 256}) is None
    assert "256 characters" in (_problem(schema, {"a": "a" * 257}) or "")


@pytest.mark.parametrize("word", ["$ref", "$dynamicRef"])
def test_references_that_double_the_work_at_every_level_are_counted(word: str) -> None:
    levels = {f"l{at}": {"allOf": [{word: f"#/$defs/l{at + 1}"}] * 2} for at in range(40)}
    for level in levels.values():
        level["allOf"] = [dict(item) for item in level["allOf"]]
    schema = {"$defs": {**levels, "l40": {"type": "object"}}, "$ref": "#/$defs/l0"}
    with pytest.raises(Invalid, match="more than 5000 references"):
        _problem(schema, {})


def test_a_tools_schema_is_compiled_once_per_digest_and_direction() -> None:
    schemas = ToolSchemas()
    assert schemas.problem("sha256:0", "tool", "in", {"type": "object"}, {}) is None
    assert schemas.problem("sha256:0", "tool", "in", {"type": "array"}, {}) is None
    assert schemas.problem("sha256:0", "tool", "out", {"type": "array"}, {}) is not None
    assert schemas.problem("sha256:1", "tool", "in", {"type": "array"}, {}) is not None
