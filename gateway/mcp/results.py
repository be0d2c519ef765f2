"""What a call gave, as MCP's result of `tools/call`."""

from typing import Any

import msgspec
from msgspec import Raw

from gateway.mcp.questions import is_call_result
from gateway.mcp.wire import COMPLETE, DIGEST_META, SKILL_META, VERSION_META
from services.failures import ServiceError, ToolFailed


def answered(result: Any, skill: str, version: int, digest: str, *, is_interactive: bool) -> dict[str, Any]:
    """A tool's result, and what exactly gave it. Raises `ToolFailed`."""
    given = own_content(result) if is_interactive else content(result)
    meta = {VERSION_META: version, DIGEST_META: digest, SKILL_META: skill}
    return {**given, "_meta": {**given.get("_meta", {}), **meta}}


def content(result: Any) -> dict[str, Any]:
    """Structured where the result is an object, and always as text for clients of before."""
    text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
    content: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": False, **COMPLETE}
    return content | {"structuredContent": result} if isinstance(result, dict) else content


def reply_content(data: bytes) -> dict[str, Any]:
    """`content` of an object that is encoded already, and stays so: for whoever encodes the rest."""
    text = {"type": "text", "text": data.decode()}
    return {"content": [text], "isError": False, "structuredContent": Raw(data), **COMPLETE}


def own_content(result: Any) -> dict[str, Any]:
    """An interactive tool may answer with content of its own making, a picture for instance."""
    if not isinstance(result, dict) or "content" not in result:
        return content(result)
    if not is_call_result(result):
        raise ToolFailed("the tool's content is not as MCP defines it", code="bad_output")
    return {**result, **COMPLETE}


def failed(error: ServiceError) -> dict[str, Any]:
    """A failed call is a result that the model reads, with a code for programs."""
    text = f"{error.message} (code: {error.code})"
    meta = {"dev.skillwire/code": error.code}
    if "incident" in error.facts:
        known = msgspec.to_builtins(error.facts.get("known_solutions", []))
        meta |= {"dev.skillwire/incident": error.facts["incident"], "dev.skillwire/known_solutions": known}
        text += "".join(
            f"\nKnown solution ({each['match']}, worked {each['worked']} of {each['tried']} times): {each['text']}"
            for each in known
        )
    return {"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta, **COMPLETE}
