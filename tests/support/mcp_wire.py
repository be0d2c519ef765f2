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


async def request(
    client: httpx2.AsyncClient, method: str, params: dict[str, Any] | None = None, **meta: str
) -> dict[str, Any]:
    """The JSON-RPC answer (`result` or `error`) of one POST to /mcp; `meta` goes into `_meta` as ours."""
    ours = {f"dev.skillwire/{name}": value for name, value in meta.items()}
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
    }
    if params and (named := params.get("uri", params.get("name"))):
        headers["mcp-name"] = named
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**(params or {}), "_meta": {**_META, **ours}}}
    answer = await client.post("/mcp", json=body, headers=headers)
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
