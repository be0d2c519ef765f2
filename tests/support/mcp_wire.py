"""The 2026-07-28 wire by hand, for methods the client library has no call for."""

import io
import json
import zipfile
from typing import Any

import httpx2

VERSION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "0"},
}


def composed(
    method: str,
    params: dict[str, Any] | None = None,
    capabilities: dict[str, Any] | None = None,
    named: str | None = None,
    **meta: str,
) -> dict[str, Any]:
    """What httpx is given for one POST; `meta` goes into `_meta` as ours, `named` is said in the header
    instead of what the body names."""
    ours: dict[str, Any] = {f"dev.skillwire/{name}": value for name, value in meta.items()}
    if capabilities is not None:
        ours["io.modelcontextprotocol/clientCapabilities"] = capabilities
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
    }
    given = params or {}
    if name := named or given.get("uri", given.get("name", given.get("taskId"))):
        headers["mcp-name"] = name
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**given, "_meta": {**_META, **ours}}}
    return {"url": "/mcp", "json": body, "headers": headers}


async def request(
    client: httpx2.AsyncClient, method: str, params: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The JSON-RPC answer (`result` or `error`) of one POST to /mcp, as `composed` makes it."""
    answer = await client.post(**composed(method, params, **more))
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = next(line[len("data: ") :] for line in text.splitlines() if line.startswith("data: "))
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def zipped(files: dict[str, str]) -> bytes:
    """A package to upload."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return buffer.getvalue()
