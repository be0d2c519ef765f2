"""REST as a client meets it: the envelope, caching headers, uploads, and what bad input gets."""

import io
import json
import struct
import zipfile
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from gateway.operations import OPERATIONS
from tests.support.service import Service

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(service: Service) -> Any:
    with httpx2.Client(base_url=f"{service.url}/api/v1", timeout=10) as opened:
        yield opened


def package(name: str = "uploaded", body: str = "Do it.", **files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("SKILL.md", f"---\nname: {name}\ndescription: Uploaded by a test.\n---\n\n{body}\n")
        for path, content in files.items():
            archive.writestr(path, content)
    return buffer.getvalue()


def upload(client: httpx2.Client, data: bytes, **headers: str) -> httpx2.Response:
    return client.post("/skills", files={"file": ("skill.zip", data, "application/zip")}, headers=headers)


@pytest.mark.parametrize(
    "path",
    [
        "/skills",
        "/skills?limit=1",
        "/skills/main/hello-world",
        "/skills/main/hello-world/versions",
        "/skills/main/hello-world/versions/1",
        "/skills/main/hello-world/logs",
        "/tools",
        "/invocations",
        "/changes",
        "/cache/stats",
        "/sources",
        "/status",
    ],
)
def test_every_read_has_the_envelope_an_etag_and_says_where_it_came_from(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"success", "data", "message", "timestamp", "request_id", "performance"}
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body["performance"]) == {"duration_ms", "cache_hit"}
    assert answer.headers["etag"].startswith('W/"')
    assert answer.headers["cache-status"].startswith("skillwire; ")


def test_a_known_etag_is_answered_with_304_until_something_changes(client: httpx2.Client) -> None:
    upload(client, package("etagged", "First."))
    etag = client.get("/skills/main/etagged").headers["etag"]
    assert client.get("/skills/main/etagged", headers={"if-none-match": etag}).status_code == 304
    upload(client, package("etagged", "Second."))
    answer = client.get("/skills/main/etagged", headers={"if-none-match": etag})
    assert (answer.status_code, answer.json()["data"]["version"]) == (200, 2)


def test_a_second_read_is_a_hit_and_a_change_makes_it_a_miss(client: httpx2.Client) -> None:
    upload(client, package("warm", "First."))
    states = [client.get("/skills/main/warm").headers["cache-status"].split(";")[1].strip() for _ in range(2)]
    assert states == ["fwd=miss", "hit"]
    seq = upload(client, package("warm", "Second.")).headers["x-seq"]
    answer = client.get("/skills/main/warm")
    assert "fwd=miss" in answer.headers["cache-status"]
    assert f"asof={seq}" in answer.headers["cache-status"]


def test_pages_hold_every_skill_once(client: httpx2.Client) -> None:
    whole = [item["id"] for item in client.get("/skills", params={"limit": 500}).json()["data"]["items"]]
    paged, cursor = [], ""
    while cursor is not None:
        page = client.get("/skills", params={"limit": 2, "cursor": cursor}).json()["data"]
        paged += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert paged == whole
    assert len(whole) >= 4


@pytest.mark.parametrize(
    ("fields", "query"), [({"activte": "false"}, ""), ({"activate": ["true", "false"]}, ""), ({}, "?activate=false")]
)
def test_a_publish_with_a_field_it_does_not_know_publishes_nothing(
    client: httpx2.Client, fields: dict[str, Any], query: str
) -> None:
    files = {"file": ("s.zip", package("mistyped"))}
    answer = client.post(f"/skills{query}", files=files, data=fields)
    assert answer.status_code == 400
    assert answer.json()["detail"].endswith(("activte", "activate"))
    assert client.get("/skills/main/mistyped").status_code == 404


def test_an_upload_is_published_read_back_rolled_back_and_deleted(client: httpx2.Client) -> None:
    first = upload(client, package("cycle", "First.", **{"notes/a b.txt": "hello"}))
    assert first.status_code == 201
    made = first.json()["data"]
    assert (made["id"], made["version"], made["changed"]) == ("main/cycle", 1, True)
    assert upload(client, package("cycle", "First.", **{"notes/a b.txt": "hello"})).json()["data"]["changed"] is False
    assert upload(client, package("cycle", "Second.")).json()["data"]["version"] == 2
    file = client.get("/skills/main/cycle/files/notes/a b.txt", params={"version": 1})
    assert (file.text, file.headers["x-skill-digest"]) == ("hello", made["digest"])
    assert client.get("/skills/main/cycle/files/notes/a b.txt").status_code == 404
    assert client.post("/skills/main/cycle/rollback", json={"version": 1}).status_code == 200
    assert client.get("/skills/main/cycle").json()["data"]["digest"] == made["digest"]
    assert client.delete("/skills/main/cycle").status_code == 200
    assert client.get("/skills/main/cycle").json()["data"]["status"] == "inactive"
    assert client.post("/skills/main/cycle/rollback", json={"version": 2}).status_code == 200
    assert client.get("/skills/main/cycle").json()["data"]["version"] == 2


def test_if_match_lets_one_writer_win(client: httpx2.Client) -> None:
    digest = upload(client, package("guarded", "First.")).json()["data"]["digest"]
    assert upload(client, package("guarded", "Second."), **{"if-match": f'"{digest}"'}).status_code == 201
    loser = upload(client, package("guarded", "Third."), **{"if-match": f'"{digest}"'})
    assert (loser.status_code, loser.json()["code"]) == (409, "conflict")
    assert loser.json()["active_version"] == 2


def test_a_bad_package_gets_4xx_with_its_diagnostics_and_changes_nothing(client: httpx2.Client) -> None:
    before = client.get("/changes").json()["data"]["position"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("SKILL.md", "---\nname: bad\ndescription: a: b: c\n---\n")
    answer = upload(client, buffer.getvalue())
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    (diagnostic,) = answer.json()["diagnostics"]
    assert diagnostic["line"] == 3
    assert "cannot be served: SKILL.md:3: broken YAML" in answer.json()["detail"]
    assert diagnostic["hint"] in answer.json()["detail"]
    for data in (b"", b"not a zip", package(**{"../up": "x"}), struct.pack("<I", 0x06054B50) + b"\0" * 18):
        assert upload(client, data).status_code in (400, 413, 422)
    assert client.get("/changes").json()["data"]["position"] == before


HOSTILE: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/skills?limit=0", {}),
    ("GET", "/skills?limit=99999999999999999999999999", {}),
    ("GET", "/skills?limit=1e3", {}),
    ("GET", "/skills?unknown=1", {}),
    ("GET", "/skills?cursor=" + "x" * 5000, {}),
    ("GET", "/skills?owner=..", {}),
    ("GET", "/skills/main/UPPER", {}),
    ("GET", "/skills/main/%00", {}),
    ("GET", "/skills/main/%ED%A0%80", {}),
    ("GET", "/skills/main/nothing", {}),
    ("GET", "/skills/main/hello-world/versions/0", {}),
    ("GET", "/skills/main/hello-world/versions/9223372036854775808", {}),
    ("GET", "/skills/main/hello-world/versions/99", {}),
    ("GET", "/skills/main/hello-world/files/%2e%2e/%2e%2e/etc/passwd", {}),
    ("GET", "/skills/main/hello-world/files/SKILL.md?version=-1", {}),
    ("GET", "/changes?after=-1", {}),
    ("GET", "/invocations?since=yesterday", {}),
    ("POST", "/skills", {}),
    ("POST", "/skills", {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
    ("POST", "/skills", {"content": b"{}", "headers": JSON}),
    ("POST", "/skills/main/hello-world/rollback", {"content": b"", "headers": JSON}),
    ("POST", "/skills/main/hello-world/rollback", {"content": b"[]", "headers": JSON}),
    ("POST", "/skills/main/hello-world/rollback", {"content": b'{"version": true}', "headers": JSON}),
    ("POST", "/skills/main/hello-world/rollback", {"content": b'{"version": 99}', "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": "\\ud800"}', "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": ""}', "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": "   "}', "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": 1}', "headers": JSON}),
    ("POST", "/search", {"content": b"\xff\xfe", "headers": JSON}),
    ("POST", "/search", {"content": b"[" * 100_000, "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": "x", "limit": 1e400}', "headers": JSON}),
    ("POST", "/search", {"content": b'{"query": "x", "limit": NaN}', "headers": JSON}),
    ("POST", "/tools/nothing/call", {"json": {"arguments": {}}}),
    ("POST", "/tools/main_hello-world_greet/call", {"json": {"arguments": []}}),
    ("POST", "/tools/main_hello-world_greet/call", {"json": {"arguments": {"name": 5}}}),
    ("POST", "/tools/main_hello-world_greet/call", {"content": b'{"arguments": {"name": "\\ud800"}}', "headers": JSON}),
    ("POST", "/tools/main_hello-world_greet/call", {"json": {"arguments": {"name": "x"}, "extra": 1}}),
    ("DELETE", "/skills/main/nothing", {}),
    ("PUT", "/skills", {}),
    ("GET", "/nothing", {}),
]


@pytest.mark.parametrize(("method", "path", "options"), HOSTILE, ids=lambda value: str(value)[:60])
def test_bad_input_gets_a_4xx_problem(client: httpx2.Client, method: str, path: str, options: dict[str, Any]) -> None:
    answer = client.request(method, path, **options)
    assert 400 <= answer.status_code < 500, answer.text
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["success"], body["status"]) == (False, answer.status_code)
    assert body["code"]
    assert body["detail"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"host": "evil.example"}, 421, "foreign_host"),
        ({"host": ""}, 421, "foreign_host"),
        ({"origin": "https://evil.example"}, 403, "foreign_origin"),
        ({"origin": "null"}, 403, "foreign_origin"),
        ({"origin": "http://127.0.0.1:1"}, 403, "foreign_origin"),
    ],
)
def test_foreign_hosts_and_origins_are_refused_everywhere(
    service: Service, headers: dict[str, str], status: int, code: str
) -> None:
    for path in ("/api/v1/skills", "/mcp", "/events", "/", "/health"):
        answer = httpx2.get(f"{service.url}{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path


def test_a_body_over_the_bound_is_refused_with_and_without_a_length(client: httpx2.Client) -> None:
    size = 40 * 1024 * 1024
    assert client.post("/search", content=b"x" * size, headers=JSON).status_code == 413
    chunked = client.post("/search", content=(b"x" * 65536 for _ in range(size // 65536)), headers=JSON)
    assert chunked.status_code == 413


def test_the_openapi_document_names_every_rest_operation(service: Service) -> None:
    document = httpx2.get(f"{service.url}/openapi.json").json()
    described = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert {operation.name for operation in OPERATIONS if operation.http is not None} <= described
    call = document["paths"]["/api/v1/tools/{tool}/call"]["post"]
    assert [parameter["name"] for parameter in call["parameters"]] == ["tool", "X-Consistency"]
    body = call["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
    assert set(document["components"]["schemas"][body]["properties"]) == {"arguments"}


def test_a_file_is_never_served_as_a_page_or_script_of_this_site(client: httpx2.Client) -> None:
    hostile = {"x.html": "<script>alert(1)</script>", "x.svg": "<svg onload='alert(1)'/>", "x.js": "alert(1)"}
    upload(client, package("hostile-files", **hostile))
    for path in hostile:
        answer = client.get(f"/skills/main/hostile-files/files/{path}")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_operation_is_an_rpc_command_too(service: Service) -> None:
    with connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket:
        for number, operation in enumerate(OPERATIONS):
            socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": operation.name, "params": {}}))
            error = json.loads(socket.recv(timeout=5)).get("error", {})
            assert error.get("code") in (None, -32602), (operation.name, error)
