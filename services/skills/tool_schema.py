"""What a tool's schema may say, judged in microseconds and before anything evaluates it.

A schema comes from whoever published the skill and is evaluated in the service's own process.
It may therefore neither reach out nor stall: references stay inside the schema and lead
somewhere, they never come back to where they began without going into the value, and a
`pattern` is one that a backtracking matcher gets through quickly. jsonschema's own check against
the metaschema is not used: it takes some 180 us a property, a second and a half for 64 KB.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

SCHEMA_DEPTH_MAX = 64
# A schema in `properties` is two levels of JSON below the schema around it; a default has some of its own.
_JSON_DEPTH_MAX = 3 * SCHEMA_DEPTH_MAX
_INTEGER_MAX = 2**53
# With at most 3 unbounded repetitions, none inside another, a match over n characters takes at
# most about n**4 / 24 steps: 256 characters stay in the low milliseconds in practice.
_REPETITIONS_MAX = 3
_PATTERN_LENGTH_MAX = 512
_CLASS_OR_ESCAPE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REPETITION = re.compile(r"[*+]|\{\d*,\d*\}|\{\d+\}")
_GROUP_REPEATED = re.compile(r"\)\s*(?:[*+]|\{)")

# Where schemas stand within a schema. Those of `_IN_PLACE` judge the same value as the schema around them.
_SINGLE = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SINGLE_IN_PLACE = ("not", "if", "then", "else")
_LISTS = ("prefixItems",)
_LISTS_IN_PLACE = ("allOf", "anyOf", "oneOf")
_NAMED = ("properties", "$defs", "definitions")
_NAMED_IN_PLACE = ("dependentSchemas",)
# Older drafts hold schemas here, or match patterns by it.
_NOT_EVALUATED = ("patternProperties", "dependencies", "$recursiveRef", "extends", "disallow")
_IN_PLACE = frozenset((*_SINGLE_IN_PLACE, *_LISTS_IN_PLACE, *_NAMED_IN_PLACE))

_Type = Literal["object", "array", "string", "number", "integer", "boolean", "null"]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class SchemaProblem(NamedTuple):
    """`harmful` when evaluating the schema could reach out or take without end, not merely go wrong."""

    message: str
    harmful: bool = False


class _Keywords(msgspec.Struct, rename="camel"):
    """The keywords whose value is no schema; their types are those of the metaschema."""

    type: _Type | Annotated[list[_Type], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    enum: list[Any] | msgspec.UnsetType = msgspec.UNSET
    required: list[str] | msgspec.UnsetType = msgspec.UNSET
    title: str = ""
    description: str = ""
    format: str = ""
    pattern: str = ""
    ref: str = msgspec.field(name="$ref", default="")
    dynamic_ref: str = msgspec.field(name="$dynamicRef", default="")
    anchor: str = msgspec.field(name="$anchor", default="")
    dynamic_anchor: str = msgspec.field(name="$dynamicAnchor", default="")
    address: str = msgspec.field(name="$id", default="")
    draft: str = msgspec.field(name="$schema", default="")
    minimum: float = 0
    maximum: float = 0
    exclusive_minimum: float | bool = False  # a truth value in draft 4
    exclusive_maximum: float | bool = False
    multiple_of: Annotated[float, msgspec.Meta(gt=0)] = 1
    min_length: _Count = 0
    max_length: _Count = 0
    min_items: _Count = 0
    max_items: _Count = 0
    min_contains: _Count = 0
    max_contains: _Count = 0
    min_properties: _Count = 0
    max_properties: _Count = 0
    unique_items: bool = False
    dependent_required: dict[str, list[str]] = {}


def problem_of(schema: object) -> SchemaProblem | None:
    """Why this schema may not be declared, or None."""
    if problem := _problem_of_json(schema):
        return problem
    try:
        # By identity: `{}` may stand in many places, and each is a place of its own.
        steps: dict[int, list[Any]] = {}
        anchors: dict[str, Any] = {"#": schema}
        waiting: list[tuple[Any, int]] = [(schema, 0)]
        while waiting:
            node, depth = waiting.pop()
            if isinstance(node, bool):
                continue
            if depth > SCHEMA_DEPTH_MAX:
                return SchemaProblem(f"a schema is nested deeper than {SCHEMA_DEPTH_MAX}", harmful=True)
            words = msgspec.convert(node, _Keywords)
            if problem := _problem_of_words(node, words, depth):
                return problem
            anchors.update((f"#{anchor}", node) for anchor in (words.anchor, words.dynamic_anchor) if anchor)
            inner = list(_inner(node))
            waiting += [(value, depth + 1) for _, value in inner]
            steps[id(node)] = [value for keyword, value in inner if keyword in _IN_PLACE]
            if words.ref or words.dynamic_ref:
                steps[id(node)].append(words.ref or words.dynamic_ref)
    except msgspec.ValidationError as error:
        return SchemaProblem(f"a schema is not valid: {error}")
    return _problem_of_references(schema, steps, anchors)


def _problem_of_json(schema: object) -> SchemaProblem | None:
    """What other readers of the same JSON would stumble over, wherever in the schema it stands."""
    waiting = [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _JSON_DEPTH_MAX:
            return SchemaProblem(f"a schema is nested deeper than {SCHEMA_DEPTH_MAX}", harmful=True)
        if isinstance(value, int) and abs(value) > _INTEGER_MAX:
            return SchemaProblem("a schema holds an integer beyond 2^53", harmful=True)
        if isinstance(value, dict):
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]
    return None


def _inner(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(keyword, schema) for every schema right below this one."""
    for keyword in (*_SINGLE, *_SINGLE_IN_PLACE):
        if keyword in node:
            yield keyword, node[keyword]
    for keyword in (*_LISTS, *_LISTS_IN_PLACE):
        for value in msgspec.convert(node.get(keyword, []), list[Any]):
            yield keyword, value
    for keyword in (*_NAMED, *_NAMED_IN_PLACE):
        for value in msgspec.convert(node.get(keyword, {}), dict[str, Any]).values():
            yield keyword, value
    items = node.get("items", True)  # a list of schemas before 2020-12
    for value in items if isinstance(items, list) else [items]:
        yield "items", value


def _problem_of_words(node: dict[str, Any], words: _Keywords, depth: int) -> SchemaProblem | None:
    for reference in (words.ref, words.dynamic_ref):
        if reference and not reference.startswith("#"):
            return SchemaProblem(f"a schema may refer to itself alone, not to {reference[:100]!r}", harmful=True)
    if words.address and depth:
        return SchemaProblem("a schema within the schema has an `$id` of its own")
    for keyword in _NOT_EVALUATED:
        if keyword in node:
            return SchemaProblem(f"{keyword} is not evaluated here; list the properties")
    return _problem_of_pattern(words.pattern) if words.pattern else None


def _problem_of_pattern(pattern: str) -> SchemaProblem | None:
    shown = repr(pattern[:100])
    plain = _CLASS_OR_ESCAPE.sub("x", pattern[: _PATTERN_LENGTH_MAX + 1])
    if (
        len(pattern) > _PATTERN_LENGTH_MAX
        or len(_REPETITION.findall(plain)) > _REPETITIONS_MAX
        or _GROUP_REPEATED.search(plain)
    ):
        message = (
            f"the pattern {shown} may take too long: at most {_PATTERN_LENGTH_MAX} characters and "
            f"{_REPETITIONS_MAX} repetitions, none of a group"
        )
        return SchemaProblem(message, harmful=True)
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return SchemaProblem(f"the pattern {shown} is not valid: {error}")
    return None


def _problem_of_references(schema: Any, steps: dict[int, list[Any]], anchors: dict[str, Any]) -> SchemaProblem | None:
    """Follows what judges the same value, to find a way that leads back to its beginning."""
    done: set[int] = set()
    for start in steps:
        # Depth first: `path` holds the schemas between the start and here.
        path: set[int] = set()
        stack: list[tuple[int, bool]] = [(start, False)]
        while stack:
            at, leaving = stack.pop()
            if leaving:
                path.discard(at)
                done.add(at)
                continue
            if at in path:
                return SchemaProblem("a schema refers to itself without end", harmful=True)
            if at in done:
                continue
            path.add(at)
            stack.append((at, True))
            for step in steps[at]:
                target = _target(schema, step, anchors) if isinstance(step, str) else step
                if target is None:
                    return SchemaProblem(f"the reference {step[:100]!r} leads nowhere")
                if isinstance(target, dict):
                    if id(target) not in steps:
                        return SchemaProblem(f"the reference {step[:100]!r} leads to no schema")
                    stack.append((id(target), False))
    return None


def _target(schema: Any, reference: str, anchors: dict[str, Any]) -> Any:
    """What a reference names within the schema, None when there is nothing."""
    if not reference.startswith("#/"):
        return anchors.get(reference)
    found = schema
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isascii() and key.isdecimal() and int(key[:6]) < len(found):
            found = found[int(key[:6])]
        else:
            return None
    return found
