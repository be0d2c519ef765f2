"""Values as DynamoDB keeps them, and bodies that are larger than one of its items.

A body is compressed; what is then over `PART_BYTES_MAX` goes on in further items of the same
table, written in the same transaction, so that a large manifest is as whole as a small one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import zstandard

from services.failures import TooLarge
from services.storage.schema import storable

Item = dict[str, dict[str, Any]]
"""Attribute name -> {type: value}."""

# An item may have 400 KB, names and keys included.
PART_BYTES_MAX = 350 * 1024
# A transaction may carry 4 MB, and a publish writes a body twice: as version and as change row.
PARTS_MAX = 5
_BODY_BYTES_MAX = 64 * 1024 * 1024

_compressor = zstandard.ZstdCompressor(level=3)
_decompressor = zstandard.ZstdDecompressor()


def to_value(value: Any) -> dict[str, Any]:
    """One attribute. Text is made storable; None has no form, its attribute is left out."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    if isinstance(value, bytes):
        return {"B": value}
    if isinstance(value, str):
        return {"S": storable(value)}
    return {"L": [to_value(each) for each in value]}


def to_item(row: Mapping[str, Any]) -> Item:
    return {name: to_value(value) for name, value in row.items() if value is not None}


def to_row(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _from_value(value) for name, value in item.items()}


def _from_value(value: Mapping[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "N":
        return int(held) if held.lstrip("-").isdigit() else float(held)
    if kind == "L":
        return [_from_value(each) for each in held]
    return held


def pack(body: bytes) -> list[bytes]:
    """The body in parts, the first of which goes into its own item. Raises `TooLarge`."""
    packed = _compressor.compress(body)
    parts = [packed[start : start + PART_BYTES_MAX] for start in range(0, len(packed), PART_BYTES_MAX)]
    if len(parts) > PARTS_MAX or len(body) > _BODY_BYTES_MAX:
        raise TooLarge("the manifest and frontmatter of this version are larger than DynamoDB can keep")
    return parts


def unpack(parts: Iterable[bytes]) -> bytes:
    return _decompressor.decompress(b"".join(parts), max_output_size=_BODY_BYTES_MAX)


def updating(key: Item, row: Mapping[str, Any]) -> dict[str, Any]:
    """What sets these attributes of an item and removes those that are None, and leaves all others."""
    names = {f"#a{number}": name for number, name in enumerate(row)}
    values = {f":a{number}": to_value(value) for number, value in enumerate(row.values()) if value is not None}
    set_ = ", ".join(f"#a{number} = :a{number}" for number, value in enumerate(row.values()) if value is not None)
    removed = ", ".join(f"#a{number}" for number, value in enumerate(row.values()) if value is None)
    expression = f"SET {set_}" + (f" REMOVE {removed}" if removed else "")
    return {
        "Key": key,
        "UpdateExpression": expression,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def size_of(item: Any) -> int:
    """About how many bytes this takes in a request."""
    if isinstance(item, Mapping):
        return sum(len(str(name)) + size_of(value) for name, value in item.items())
    if isinstance(item, bytes | str):
        return len(item)
    if isinstance(item, list):
        return sum(size_of(each) for each in item)
    return len(msgspec.json.encode(item))
