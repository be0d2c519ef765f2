"""What both sides of MCP's edge say on the wire: names, codes, and the hints of lists."""

from typing import Any

MODERN = "2026-07-28"
# Required of every result by 2026-07-28; clients of before ignore it.
COMPLETE = {"resultType": "complete"}
TTL_MS = 1000

SKILLS_EXTENSION = "io.modelcontextprotocol/skills"
TASKS_EXTENSION = "io.modelcontextprotocol/tasks"

REVISION_META = "dev.skillwire/revision"
CONSISTENCY_META = "dev.skillwire/consistency"
DIGEST_META = "dev.skillwire/digest"
VERSION_META = "dev.skillwire/version"
SKILL_META = "dev.skillwire/skill"

# JSON-RPC's, and MCP's for a client that has not declared what a call needs.
INTERNAL_ERROR = -32603
MISSING_REQUIRED_CLIENT_CAPABILITY = -32021

# The name under which the deployment keeps the key of tools' states.
STATE_SECRET = "mcp-state"

NAME, TITLE = "skillwire", "Skillwire"


def server_info(version: str) -> dict[str, Any]:
    """`serverInfo`, as every answer of the modern wire carries it."""
    return {"name": NAME, "title": TITLE, "version": version}


def cache_hints(revision: int | None = None, ttl_ms: int = TTL_MS) -> dict[str, Any]:
    """SEP-2549's, of a complete result.

    Private, because what is listed depends on who asks; a second, because a change is pushed
    but a client need not listen.
    """
    return {**of_revision(revision), "ttlMs": ttl_ms, "cacheScope": "private", **COMPLETE}


def of_revision(revision: int | None) -> dict[str, Any]:
    """Lists name the catalog's revision: equal ones list the same."""
    return {} if revision is None else {"_meta": {REVISION_META: revision}}
