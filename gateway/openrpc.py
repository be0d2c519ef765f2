"""What `rpc.discover` answers: an OpenRPC document of every command, made from the operation table.

https://spec.open-rpc.org, version 1.3.2. Commands that belong to a connection are described here, because no
operation stands for them.
"""

from typing import Any

from gateway.operations.table import Operation, Params

METHOD = "rpc.discover"
_OPENRPC = "1.3.2"

_TOPICS: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 128}
_POSITION: dict[str, Any] = {"type": "string", "maxLength": 64}
_CONNECTION: tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...] = (
    (
        "subscribe",
        "Events of topics, from now or after a position.",
        {"topics": _TOPICS, "since": _POSITION},
        ("topics",),
    ),
    ("unsubscribe", "No more events of topics.", {"topics": _TOPICS}, ("topics",)),
    ("ping", "Where this stream stands.", {}, ()),
    (METHOD, "This document.", {}, ()),
)


def document(operations: tuple[Operation, ...], version: str) -> dict[str, Any]:
    """Methods in order of their names; parameters are JSON Schema, by name."""
    schemas: dict[str, Any] = {}
    methods = [_of_operation(operation, schemas) for operation in operations]
    methods += [_method(name, summary, params, required) for name, summary, params, required in _CONNECTION]
    return {
        "openrpc": _OPENRPC,
        "info": {"title": "Skillwire", "version": version},
        "methods": sorted(methods, key=lambda method: str(method["name"])),
        "components": {"schemas": schemas},
    }


def _of_operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    schema = _schema_of(operation.params)
    schemas.update(schema.get("$defs", {}))
    method = _method(operation.name, operation.summary, schema.get("properties", {}), tuple(schema.get("required", ())))
    return {**method, "x-scope": operation.scope, "x-timeout-s": operation.timeout_s}


def _schema_of(params: type[Params]) -> dict[str, Any]:
    return params.model_json_schema(ref_template="#/components/schemas/{model}")


def _method(name: str, summary: str, params: dict[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    described = [
        {"name": each, "required": each in required, "schema": schema, **_description(schema)}
        for each, schema in params.items()
    ]
    return {
        "name": name,
        "summary": summary,
        "paramStructure": "by-name",
        "params": sorted(described, key=lambda each: not each["required"]),
        "result": {"name": "result", "schema": True},
    }


def _description(schema: dict[str, Any]) -> dict[str, str]:
    return {"description": schema["description"]} if "description" in schema else {}
