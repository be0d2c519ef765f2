"""Arguments and results against a tool's declared schemas.

What a schema may say is judged in `services/skills/tool_schema.py`, the same way at publish and
here: versions of before that rule are stored too. What cannot be judged from the schema alone,
how often it is applied to one value, is counted here.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import cachetools
import jsonschema
from jsonschema.protocols import Validator

from services.failures import Invalid
from services.skills.tool_schema import problem_of

_VALIDATORS_MAX = 1024
_MATCHED_CHARS_MAX = 256
# A reference may double the work at every level of a value. This many take about 0.1 s.
_REFERENCES_MAX = 5_000
_Keyword = Callable[[Any, Any, Any, dict[str, Any]], Iterator[jsonschema.ValidationError]]
_DRAFTS = (
    jsonschema.Draft4Validator,
    jsonschema.Draft6Validator,
    jsonschema.Draft7Validator,
    jsonschema.Draft201909Validator,
)


class ToolSchemas:
    """Compiled validators by (digest, tool, direction), the least recently used dropped first."""

    def __init__(self) -> None:
        self._compiled: cachetools.LRUCache[tuple[str, str, str], _Compiled] = cachetools.LRUCache(_VALIDATORS_MAX)

    def problem(self, digest: str, tool: str, direction: str, schema: dict[str, Any], value: Any) -> str | None:
        """What does not fit and where (`$.items[2].price: ...`), or None.

        Raises `Invalid` (`bad_schema`) for a schema that may not be evaluated here.
        """
        key = (digest, tool, direction)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _Compiled(schema)
        return compiled.problem(value)


class _Compiled:
    """One schema's validator. Raises `Invalid` for a schema that may not be evaluated here."""

    def __init__(self, schema: dict[str, Any]) -> None:
        if problem := problem_of(schema):
            raise Invalid(problem.message, code="bad_schema")
        draft = str(schema.get("$schema", "")).rstrip("#")
        known = (kind for kind in _DRAFTS if kind.META_SCHEMA.get("$schema", "").rstrip("#") == draft)
        kind = next(known, jsonschema.Draft202012Validator)
        keywords: dict[str, _Keyword] = {"pattern": _bounded_pattern}
        for word in ("$ref", "$dynamicRef"):
            if word in kind.VALIDATORS:
                keywords[word] = self._counted(kind.VALIDATORS[word])
        extended = jsonschema.validators.extend(kind, keywords)  # type: ignore[no-untyped-call]  # no stub
        self._validator: Validator = extended(schema)
        self._references_left = 0

    def problem(self, value: Any) -> str | None:
        self._references_left = _REFERENCES_MAX
        try:
            error = next(iter(self._validator.iter_errors(value)), None)
        except RecursionError as failure:
            raise Invalid("the schema refers to itself without end", code="bad_schema") from failure
        return None if error is None else f"{error.json_path}: {error.message[:500]}"

    def _counted(self, follow: _Keyword) -> _Keyword:
        def counted(
            validator: Validator, reference: Any, instance: Any, schema: dict[str, Any]
        ) -> Iterator[jsonschema.ValidationError]:
            self._references_left -= 1
            if self._references_left < 0:
                raise Invalid(
                    f"the schema follows more than {_REFERENCES_MAX} references for this value", code="bad_schema"
                )
            yield from follow(validator, reference, instance, schema)

        return counted


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
