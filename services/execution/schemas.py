"""Arguments and results against a tool's declared schemas.

A schema comes from whoever published the skill and is evaluated in the service's own process,
so it may neither reach out nor stall it: references stay inside the schema, and a `pattern`
must be one that a backtracking matcher gets through quickly.
"""

import re
from collections.abc import Iterator
from typing import Any

import cachetools
import jsonschema
from jsonschema.protocols import Validator

from services.failures import Invalid

_VALIDATORS_MAX = 1024
# With at most 3 unbounded repetitions, none inside another, a match over n characters takes at
# most about n**4 / 24 steps: 256 characters stay in the low milliseconds in practice.
_REPETITIONS_MAX = 3
_MATCHED_CHARS_MAX = 256
_CLASS_OR_ESCAPE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REPETITION = re.compile(r"[*+]|\{\d*,\d*\}|\{\d+\}")
_GROUP_REPEATED = re.compile(r"\)\s*(?:[*+]|\{)")


class ToolSchemas:
    """Compiled validators by (digest, tool, direction), the least recently used dropped first."""

    def __init__(self) -> None:
        self._compiled: cachetools.LRUCache[tuple[str, str, str], Validator] = cachetools.LRUCache(_VALIDATORS_MAX)

    def problem(self, digest: str, tool: str, direction: str, schema: dict[str, Any], value: Any) -> str | None:
        """What does not fit and where (`$.items[2].price: ...`), or None.

        Raises `Invalid` (`bad_schema`) for a schema that may not be evaluated here.
        """
        key = (digest, tool, direction)
        validator = self._compiled.get(key)
        if validator is None:
            validator = self._compiled[key] = _compile(schema)
        try:
            error = next(iter(validator.iter_errors(value)), None)
        except RecursionError as failure:
            raise Invalid("the schema refers to itself without end", code="bad_schema") from failure
        return None if error is None else f"{error.json_path}: {error.message[:500]}"


def _compile(schema: dict[str, Any]) -> Validator:
    for keyword, value in _keywords(schema):
        if keyword in ("$ref", "$dynamicRef") and not (isinstance(value, str) and value.startswith("#")):
            raise Invalid(f"a schema may refer to itself alone, not to {value!r}", code="bad_schema")
        if keyword == "pattern" and isinstance(value, str):
            _check_pattern(value)
        if keyword == "patternProperties":
            raise Invalid("patternProperties is not evaluated here; list the properties", code="bad_schema")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Invalid(f"the schema is not valid: {error.message}", code="bad_schema") from error
    bounded = jsonschema.validators.extend(kind, {"pattern": _bounded_pattern})  # type: ignore[no-untyped-call]  # no stub
    return bounded(schema)  # type: ignore[no-any-return]  # the stubs call it Any


def _keywords(node: Any) -> Iterator[tuple[str, Any]]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            yield from current.items()
            waiting += current.values()
        elif isinstance(current, list):
            waiting += current


def _check_pattern(pattern: str) -> None:
    plain = _CLASS_OR_ESCAPE.sub("x", pattern)
    if len(_REPETITION.findall(plain)) > _REPETITIONS_MAX or _GROUP_REPEATED.search(plain):
        raise Invalid(
            f"the pattern {pattern!r} may take too long: at most {_REPETITIONS_MAX} repetitions, none of a group",
            code="bad_schema",
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise Invalid(f"the pattern {pattern!r} is not valid: {error}", code="bad_schema") from error


def _bounded_pattern(
    validator: Validator, pattern: str, instance: Any, schema: dict[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    del schema
    if not validator.is_type(instance, "string"):
        return
    if len(instance) > _MATCHED_CHARS_MAX:
        yield jsonschema.ValidationError(
            f"longer than the {_MATCHED_CHARS_MAX} characters a pattern is matched against"
        )
    elif re.search(pattern, instance) is None:
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")
