"""A skill's versions over REST and RPC: activate, pin, restore, remove, compare, export, usage."""

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from gateway.peers import SECRET, Peers
from gateway.principal import Principal, Scope
from notifier.events import Viewer
from services.storage.sql import SqlStore
from tests.e2e.test_rest import package, upload
from tests.support.service import Service, get


@pytest.fixture(scope="module")
def client(service: Service) -> Any:
    with httpx2.Client(base_url=f"{service.url}/api/v1", timeout=10) as opened:
        yield opened


def data(answer: httpx2.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


def publish(client: httpx2.Client, name: str, *bodies: str) -> None:
    for body in bodies:
        assert upload(client, package(name, body)).status_code == 201


def test_a_version_is_activated_and_pinned_and_the_list_says_so(client: httpx2.Client) -> None:
    publish(client, "kept", "one", "two", "three")
    assert data(client.post("/skills/main/kept/activate", json={"version": 1}))["version"] == 1
    assert data(client.post("/skills/main/kept/pin", json={"version": 2}))["changed"] is True
    shown = data(client.get("/skills/main/kept/versions"))["items"]
    assert [(each["version"], each["active"], each["pinned"]) for each in shown] == [
        (3, False, False),
        (2, False, True),
        (1, True, False),
    ]
    assert data(client.get("/skills/main/kept"))["pinned"] == [2]
    assert data(client.post("/skills/main/kept/pin", json={"version": 2, "pinned": False}))["changed"] is True
    assert client.post("/skills/main/kept/pin", json={"version": 9}).status_code == 404
    assert client.post("/skills/main/kept/pin", json={"version": "2"}).status_code == 422


def test_a_deleted_skill_is_restored_and_an_active_one_is_not(client: httpx2.Client) -> None:
    publish(client, "restored", "one", "two")
    client.post("/skills/main/restored/activate", json={"version": 1})
    refused = client.post("/skills/main/restored/restore")
    assert (refused.status_code, refused.json()["status"], refused.json()["skill_status"]) == (409, 409, "active")
    client.delete("/skills/main/restored")
    assert data(client.get("/skills/main/restored"))["deleted_version"] == 1
    assert data(client.post("/skills/main/restored/restore"))["version"] == 1
    assert data(client.get("/skills/main/restored"))["status"] == "active"


def test_a_hard_delete_leaves_only_the_number_of_the_last_version(client: httpx2.Client) -> None:
    publish(client, "removed", "one", "two")
    assert data(client.delete("/skills/main/removed", params={"hard": "true"}))["version"] == 2
    for path in ("", "/versions", "/versions/1", "/usage", "/export"):
        assert client.get(f"/skills/main/removed{path}").status_code == 404
    assert data(upload(client, package("removed", "one")), 201)["version"] == 3


def test_a_hard_delete_needs_the_scope_admin_over_rest_and_rpc(
    client: httpx2.Client, service: Service, skills: Path
) -> None:
    publish(client, "guarded", "one")
    headers = {"authorization": bearer(service, skills.parent / "data", "read", "invoke", "publish")}

    refused = client.delete("/skills/main/guarded", params={"hard": "true"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    with connect(f"{service.url.replace('http', 'ws', 1)}/ws", additional_headers=headers) as socket:
        params = {"owner": "main", "name": "guarded", "hard": True}
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "delete_skill", "params": params}))
        assert json.loads(socket.recv(5))["error"]["data"]["code"] == "insufficient_scope"
    assert data(client.get("/skills/main/guarded"))["status"] == "active"

    assert client.delete("/skills/main/guarded", headers=headers).status_code == 200
    headers = {"authorization": bearer(service, skills.parent / "data", "read", "admin", "publish")}
    assert client.delete("/skills/main/guarded", params={"hard": "true"}, headers=headers).status_code == 200
    assert client.get("/skills/main/guarded").status_code == 404


def bearer(service: Service, data_dir: Path, *scopes: Scope) -> str:
    """What another replica of this deployment would send for somebody with these scopes."""

    async def secret() -> bytes:
        store = await SqlStore.open(f"sqlite:///{data_dir}/skillwire.db")
        try:
            return await store.secret(SECRET)
        finally:
            await store.close()

    peers = Peers("other", asyncio.run(secret()))
    somebody = Principal("somebody", frozenset(scopes), Viewer(owners=None))
    return peers.sealed(peers.claim(str(get(service, "/status")["replica"]), "", somebody))


def test_a_long_history_is_read_page_by_page(client: httpx2.Client, service: Service) -> None:
    publish(client, "long", *map(str, range(1, 6)))
    path = "/skills/main/long/versions"
    whole = data(client.get(path))
    assert ([item["version"] for item in whole["items"]], whole["next_cursor"]) == ([5, 4, 3, 2, 1], None)

    pages, cursor = [], ""
    while cursor is not None:
        page = data(client.get(path, params={"limit": 2, "cursor": cursor}))
        pages.append(page["items"])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [item for page in pages for item in page] == whole["items"]
    assert data(client.get(path, params={"limit": 5})) == whole
    assert data(client.get(path, params={"cursor": "3"}))["items"] == whole["items"][3:]

    first = client.get(path, params={"limit": 2})
    again = client.get(path, params={"limit": 2}, headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304
    assert client.get(path, params={"limit": 3}).headers["etag"] != first.headers["etag"]

    with connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket:
        for more in ({}, {"limit": 2, "cursor": "4"}):
            params = {"owner": "main", "name": "long", **more}
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "list_versions", "params": params}))
            assert json.loads(socket.recv(timeout=5))["result"] == data(client.get(path, params=more))


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=a", "cursor=a", "cursor=0", "cursor=-1", "page=1"])
def test_a_page_of_versions_that_makes_no_sense_is_refused(client: httpx2.Client, query: str) -> None:
    publish(client, "odd-pages", "one")
    assert client.get(f"/skills/main/odd-pages/versions?{query}").status_code == 422


def test_one_version_is_deleted_by_an_admin_and_the_active_one_stays(
    client: httpx2.Client, service: Service, skills: Path
) -> None:
    publish(client, "thinned", "one", "two", "three")
    path = "/skills/main/thinned/versions"
    headers = {"authorization": bearer(service, skills.parent / "data", "read", "publish")}
    assert client.delete(f"{path}/2", headers=headers).status_code == 403
    assert client.delete(f"{path}/3").status_code == 409
    assert data(client.delete(f"{path}/2"))["version"] == 2
    assert [version["version"] for version in data(client.get(path))["items"]] == [3, 1]
    assert client.delete(f"{path}/2").status_code == 404
    assert data(client.post("/skills/main/thinned/rollback", json={"version": 1}))["version"] == 1
    assert client.post("/skills/main/thinned/rollback", json={"version": 2}).status_code == 404


def test_two_versions_are_compared_file_by_file(client: httpx2.Client) -> None:
    upload(client, package("compared", "Do it.", **{"scripts/a.py": "print(1)\n", "gone.txt": "x\n"}))
    upload(client, package("compared", "Do that.", **{"scripts/a.py": "print(1)\n", "new.bin": "a\0b"}))

    found = data(client.get("/skills/main/compared/diff", params={"from": 1, "to": 2}))

    assert (found["from"]["version"], found["to"]["version"], found["truncated"]) == (1, 2, False)
    files = {file["path"]: file for file in found["files"]}
    assert {path: file["change"] for path, file in files.items()} == {
        "SKILL.md": "changed",
        "gone.txt": "removed",
        "new.bin": "added",
    }
    assert "-Do it.\n+Do that.\n" in files["SKILL.md"]["diff"]
    assert files["new.bin"]["binary"] is True
    assert client.get("/skills/main/compared/diff", params={"from": 1, "to": 9}).status_code == 404
    assert client.get("/skills/main/compared/diff", params={"from": 1}).status_code == 422
    same = data(client.get("/skills/main/compared/diff", params={"from": 2, "to": 2}))
    assert (same["files"], same["frontmatter"]) == ([], [])


def test_an_export_is_the_same_bytes_each_time_and_can_be_published_again(client: httpx2.Client) -> None:
    upload(client, package("exported", "Do it.", **{"scripts/a.py": "print(1)\n"}))
    answers = [client.get("/skills/main/exported/export", params={"version": 1}) for _ in range(2)]
    assert answers[0].content == answers[1].content
    digest = data(client.get("/skills/main/exported"))["digest"]
    assert answers[0].headers["etag"] == f'"{digest}"'
    with zipfile.ZipFile(io.BytesIO(answers[0].content)) as archive:
        assert archive.namelist() == ["exported/SKILL.md", "exported/scripts/a.py"]
    cached = client.get("/skills/main/exported/export", headers={"if-none-match": f'"{digest}"'})
    assert (cached.status_code, cached.content) == (304, b"")
    again = data(upload(client, answers[0].content), 201)
    assert (again["digest"], again["changed"]) == (digest, False)


def test_usage_and_the_log_tell_who_called_and_how_it_went(client: httpx2.Client, service: Service) -> None:
    with connect(f"{service.url.replace('http', 'ws')}/ws") as socket:
        for command in ("get_usage", "skill_logs"):
            params = {"owner": "main", "name": "hello-world"}
            socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": command, "params": params}))
            answer = json.loads(socket.recv(5))
            while answer.get("id") != 1:
                answer = json.loads(socket.recv(5))
            assert "result" in answer, answer
    usage = data(client.get("/skills/main/hello-world/usage"))
    assert (usage["calls"], usage["failures"], usage["last_at"], usage["versions"]) == (0, 0, None, [])
    for query in ({"ok": "true"}, {"caller": "nobody"}, {"until": "2020-01-01T00:00:00Z"}):
        assert data(client.get("/invocations", params=query))["items"] == []
    assert client.get("/invocations", params={"ok": "perhaps"}).status_code == 422


def test_the_older_addresses_lead_to_the_same_operations(client: httpx2.Client, service: Service) -> None:
    admin = f"{service.url}/admin/skills"
    for number, body in enumerate(("one", "two"), start=1):
        files = {"file": ("a.zip", package("old-client", body), "application/zip")}
        assert data(client.post(f"{admin}/validate", files=files))["grade"] == "strict"
        assert data(client.post(f"{admin}/upload", files=files), 201)["version"] == number
    for skill in ("old-client", "main/old-client"):
        assert len(data(client.get(f"{admin}/{skill}/versions"))["items"]) == 2
        assert data(client.get(f"{admin}/{skill}/logs"))["items"] == []
        assert "seq" in data(client.post(f"{admin}/{skill}/reload"))
    assert data(client.post(f"{admin}/old-client/rollback", json={"version": 1}))["version"] == 1
    assert data(client.get("/skills/main/old-client"))["version"] == 1
    assert client.post(f"{admin}/old-client/rollback", json={"version": 9}).status_code == 404
    assert client.get(f"{admin}/UPPER/versions").status_code == 400
    broken = {"file": ("a.zip", b"no zip", "application/zip")}
    assert client.post(f"{admin}/validate", files=broken).status_code == 400
