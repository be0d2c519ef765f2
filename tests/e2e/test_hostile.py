"""What nobody means well with, against a running service: refused, and nothing is written."""

import asyncio
import base64
import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2
import pytest
import websockets

from tests.support import mcp_wire
from tests.support.hostile import ARCHIVES, LARGE, Hostile
from tests.support.packages import skill_md, zip_of
from tests.support.service import Service

# What the service writes on its own, whatever is asked of it; the audit log follows the rows of `changes`.
_OWN_TABLES = {"audit", "leases", "invocations", "vectors"}


@pytest.fixture(scope="module")
def data(skills: Path) -> Path:
    return skills.parent / "data"


def stored(data: Path) -> dict[str, object]:
    """Every blob and every row, of what a publish writes."""
    blobs = sorted(path.relative_to(data).as_posix() for path in (data / "blobs").rglob("*") if path.is_file())
    with closing(sqlite3.connect(f"file:{data / 'skillwire.db'}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {
            name: sorted(map(repr, database.execute(f'SELECT * FROM "{name}"')))
            for name in tables
            if name not in _OWN_TABLES
        }
    return {"blobs": blobs, "rows": rows}


def upload(service: Service, data: bytes) -> httpx2.Response:
    return httpx2.post(f"{service.url}/api/v1/skills", files={"file": ("a.zip", data)}, timeout=10)


def refusal_over_rpc(service: Service, data: bytes) -> str:
    async def ask() -> str:
        async with websockets.connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket:
            params = {"zip": base64.b64encode(data).decode()}
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "publish", "params": params}))
            answer = json.loads(await asyncio.wait_for(socket.recv(), 5))
            code: str = answer["error"]["data"]["code"]
            return code

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def before(service: Service, data: Path) -> dict[str, object]:
    # What is stored is compared at the end of the module, and must be something that a publish changes.
    empty = stored(data)
    assert upload(service, zip_of({"SKILL.md": skill_md("harmless")})).status_code == 201
    now = stored(data)
    assert now["blobs"] != empty["blobs"]
    assert now["rows"] != empty["rows"]
    return now


@pytest.mark.parametrize("hostile", [pytest.param(each, id=name) for name, each in {**ARCHIVES, **LARGE}.items()])
def test_a_hostile_package_is_refused_and_nothing_is_written(
    service: Service, data: Path, before: dict[str, object], hostile: Hostile
) -> None:
    made = hostile.make()
    answer = upload(service, made)
    assert (answer.status_code, answer.json()["code"]) == (400 if hostile.code == "invalid" else 413, hostile.code)
    if len(made) < 700_000:  # in base64 within one message
        assert refusal_over_rpc(service, made) == hostile.code
    assert stored(data) == before


def test_a_date_that_is_none_is_refused_with_its_line_and_may_stand_in_quotes(service: Service) -> None:
    text = "---\nname: no-date\ndescription: Has a day 0.\nsince: {}\n---\n"
    refused = upload(service, zip_of({"SKILL.md": text.format("2026-01-00").encode()}))
    assert refused.status_code == 400
    assert "2026-01-00 is no date" in refused.json()["detail"]
    assert upload(service, zip_of({"SKILL.md": text.format("'2026-01-00'").encode()})).status_code == 201
    shown = httpx2.get(f"{service.url}/api/v1/skills/main/no-date", timeout=10).json()["data"]
    assert shown["frontmatter"]["since"] == "2026-01-00"


@pytest.mark.parametrize("path", ["/api/v1/skills", "/livez", "/mcp"])
def test_a_length_of_thousands_of_zeros_is_read_as_any(service: Service, path: str) -> None:
    """Python refuses to make a number of more than 4300 digits."""
    composed = mcp_wire.composed("tools/call", {"name": "load_skill", "arguments": {"skill": "main/calculator"}})
    body = json.dumps(composed["json"]).encode() if path == "/mcp" else b""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close"]
    if body:
        lines += ["content-type: application/json", *(f"{key}: {value}" for key, value in composed["headers"].items())]
    lines += [f"content-length: {'0' * 5000}{len(body)}", "", ""]
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_after_all_that_the_service_serves(service: Service, before: dict[str, object]) -> None:
    assert before
    answer = upload(service, zip_of({"SKILL.md": skill_md("after-all")}))
    assert answer.status_code == 201
    counted = httpx2.get(f"{service.url}/metrics", timeout=5).text
    assert 'skillwire_http_requests_total{status_class="2xx"}' in counted
    assert 'skillwire_http_requests_total{status_class="5xx"} 0.0' in counted
