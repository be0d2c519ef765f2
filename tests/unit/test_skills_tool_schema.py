"""Declared tools whose schemas are harmful, wrong, or neither (docs/decisions/0040-hostile-tools.md)."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.execution.schemas import ToolSchemas
from services.failures import Invalid
from services.models import Diagnostic
from services.skills.package import TOOLS_JSON_BYTES_MAX, Package, from_files
from services.skills.tool_schema import SCHEMA_DEPTH_MAX
from tests.support.cost import cpu_s, floor_s
from tests.support.packages import skill_md, tool, tools_json

RUN = {"scripts/run.py": b"def main(arguments): return arguments\n"}


def with_tools(data: bytes) -> Package:
    return from_files({"SKILL.md": skill_md(), "tools.json": data, **RUN}, "demo")


def only(package: Package) -> Diagnostic:
    assert len(package.diagnostics) == 1, package.diagnostics
    return package.diagnostics[0]


def nested_schema(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (nested_schema(SCHEMA_DEPTH_MAX + 1), "nested deeper"),
        ({"default": json.loads("[" * 300 + "]" * 300)}, "nested deeper"),
        ({"maximum": 10**40}, "beyond 2^53"),
        ({"properties": {"a": {"const": -(10**16)}}}, "beyond 2^53"),
        ({"$ref": "#"}, "without end"),
        ({"allOf": [{"not": {"$ref": "#"}}]}, "without end"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "without end"),
        ({"properties": {"a": {"$anchor": "x", "if": {"$dynamicRef": "#x"}}}}, "without end"),
        ({"properties": {"a": {"$ref": "http://169.254.169.254/latest"}}}, "itself alone"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "itself alone"),
        ({"properties": {"a": {"pattern": "(a+)+$"}}}, "too long"),
        ({"items": {"pattern": "a*a*a*a*$"}}, "too long"),
        ({"properties": {"a": {"pattern": "a" * 600}}}, "too long"),
    ],
)
def test_a_schema_that_would_harm_whoever_evaluates_it_keeps_the_package_from_being_served(
    schema: dict[str, object], reason: str
) -> None:
    package = with_tools(tools_json(tool("good"), tool("bad", inputSchema={"type": "object", **schema})))
    assert package.grade == "quarantined"
    assert reason in only(package).message


def test_a_tools_file_nested_beyond_what_can_be_read_is_quarantined() -> None:
    package = with_tools(b'{"tools":[{"name":"a","description":"","command":["x"],"inputSchema":' + b'{"a":' * 9000)
    assert package.grade == "quarantined"
    assert "nested too deeply" in only(package).message


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"required": "a"}, "not valid"),
        ({"properties": {"a": {"type": "text"}}}, "not valid"),
        ({"properties": {"a": 1}}, "not valid"),
        ({"properties": []}, "not valid"),
        ({"allOf": {}}, "not valid"),
        ({"items": {"minLength": -1}}, "not valid"),
        ({"properties": {"a": {"pattern": "["}}}, "not valid"),
        ({"properties": {"a": {"pattern": "a{99999999999999999999}"}}}, "not valid"),
        ({"properties": {"a": {"pattern": "(" * 500}}}, "not valid"),
        ({"$schema": {}}, "not valid"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "leads nowhere"),
        ({"enum": [{}], "properties": {"a": {"$ref": "#/enum/0"}}}, "leads to no schema"),
        ({"properties": {"a": {"$id": "x"}}}, "$id"),
        ({"patternProperties": {}}, "not evaluated"),
        ({"dependencies": {}}, "not evaluated"),
    ],
)
def test_a_schema_that_is_only_wrong_costs_its_tool_and_says_on_which_line(
    schema: dict[str, object], reason: str
) -> None:
    bad = tool("bad", inputSchema={"type": "object", **schema})
    package = with_tools(json.dumps({"tools": [tool("good"), bad]}, indent=0).encode())
    assert (package.grade, [spec.name for spec in package.tools]) == ("lenient", ["good"])
    assert reason in only(package).message
    line = only(package).line
    assert line is not None
    assert '"name": "bad"' in package.files["tools.json"].decode().splitlines()[line - 1]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}},
        {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}, "required": True}},
        {"default": {"$ref": "http://elsewhere", "pattern": "(a+)+"}, "examples": [1], "x-own": [[]]},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": ["string", "null"]}, True]},
    ],
)
def test_a_schema_that_ends_is_allowed(schema: dict[str, object]) -> None:
    assert with_tools(tools_json(tool(inputSchema={"type": "object", **schema}))).grade == "strict"


def test_the_largest_tools_file_is_judged_at_once() -> None:
    schema = {"type": "object", "properties": {f"p{at}": {} for at in range(4500)}}
    data = tools_json(tool(inputSchema=schema))
    assert 40_000 < len(data) <= TOOLS_JSON_BYTES_MAX
    assert cpu_s(lambda: with_tools(data)) < 40 * floor_s()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
keywords = st.sampled_from(
    ["type", "properties", "$ref", "$id", "$schema", "$defs", "pattern", "enum", "allOf", "items", "required", "a"]
)
schema_like = st.dictionaries(keywords, json_values | st.sampled_from(["object", "#", "http://x", "("]), max_size=5)


@settings(max_examples=150, deadline=None)
@given(schema_like | st.just({"type": "object"}), json_values)
def test_any_declaration_gives_a_package_whose_tools_can_be_checked(schema: dict[str, object], odd: object) -> None:
    package = with_tools(
        tools_json({**tool(), "inputSchema": {**schema, "type": "object"}}, {**tool("b"), "command": odd})
    )
    for declared in package.tools:
        with contextlib.suppress(Invalid):  # how often a reference is followed shows with a value only
            ToolSchemas().problem(package.digest, declared.name, "in", declared.input_schema, odd)
