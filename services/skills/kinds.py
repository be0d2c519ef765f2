"""What a package may declare beside tools: prompts, and resources under URIs of its owner."""

import functools
import re
from urllib.parse import unquote

from services.models import ToolSpec

_URI = re.compile(r"[A-Za-z0-9._~-][A-Za-z0-9._~{}/-]{0,199}")
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]{0,31})\}")


def variables(uri: str) -> list[str]:
    """The names in a URI template, in order; none for a plain URI."""
    return _VARIABLE.findall(uri)


def match_uri(template: str, uri: str) -> dict[str, str]:
    """What the template's names stand for in `uri`; empty when it does not fit."""
    found = _pattern(template).fullmatch(uri)
    return {name: unquote(value) for name, value in found.groupdict().items()} if found else {}


@functools.lru_cache(maxsize=1024)
def _pattern(template: str) -> re.Pattern[str]:
    # split gives text and names in turn
    parts = _VARIABLE.split(template)
    pieces = [re.escape(part) if at % 2 == 0 else f"(?P<{part}>[^/?#]+)" for at, part in enumerate(parts)]
    return re.compile("".join(pieces))


def kind_problem(tool: ToolSpec) -> str | None:
    """Why a package may not declare this, or None."""
    if tool.interactive and (len(tool.command) != 2 or ":" not in tool.command[1]):
        return "an interactive tool is a function: `script.py:function`"
    if tool.requires and not tool.interactive:
        return "`requires` stands with `interactive` alone"
    if tool.task != "forbidden" and tool.kind != "tool":
        return "`task` stands with kind `tool` alone"
    if tool.kind == "prompt":
        properties = tool.input_schema.get("properties", {})
        if not all(isinstance(each, dict) and each.get("type") == "string" for each in properties.values()):
            return "the arguments of a prompt are texts"
    if tool.kind == "resource":
        names = variables(tool.uri)
        if not _URI.fullmatch(tool.uri) or "{" in _VARIABLE.sub("", tool.uri) or "}" in _VARIABLE.sub("", tool.uri):
            return "`uri` is a path of letters, digits, `._~-/` and `{name}`, without a scheme"
        if len(set(names)) != len(names):
            return "a name stands twice in `uri`"
    elif tool.uri:
        return "`uri` stands with kind `resource` alone"
    return None
