"""The hot lane answers what the route would, for whom the route would, and leaves the rest to it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.test_rest import package, upload
from tests.support.service import Service, running

KEY = "k" * 32
TO_THE_ROUTE = {"x-consistency": "bounded"}  # says nothing new, but only the route reads it
READS = ["/skills/main/demo", "/skills/main/demo/versions"]
_ANSWERS = re.compile(r"^skillwire_lane_answers_total (\d+)", re.MULTILINE)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("lane")
    with running(folder / "skills", folder / "data", admin_key=KEY, embedder="off", watch="off") as service:
        yield service


@pytest.fixture
def client(keyed: Service) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=f"{keyed.url}/api/v1", headers=headers, timeout=10) as opened:
        assert upload(opened, package("demo")).status_code == 201
        yield opened


def answered(client: httpx2.Client) -> int:
    """How many answers the lane has given."""
    text = client.get(f"{str(client.base_url).removesuffix('/api/v1/')}/metrics").text
    found = _ANSWERS.search(text)
    assert found is not None
    return int(found[1])


def hot(client: httpx2.Client, path: str) -> httpx2.Response:
    """The path's answer once L1 has it."""
    for _ in range(10):
        before = answered(client)
        answer = client.get(path)
        if answered(client) > before:
            return answer
    raise AssertionError("the lane never answered")


def comparable(answer: httpx2.Response) -> tuple[Any, ...]:
    body = answer.json()
    changing = {"date", "x-request-id", "server-timing", "cache-status", "content-length"}
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in changing)
    return answer.status_code, headers, sorted(body), body["data"], body["success"]


@pytest.mark.parametrize("path", READS)
def test_the_lane_answers_as_the_route_does(client: httpx2.Client, path: str) -> None:
    answer = hot(client, path)
    assert comparable(answer) == comparable(client.get(path, headers=TO_THE_ROUTE))
    assert "tier=l1" in answer.headers["cache-status"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_client_that_has_it_is_told_so(client: httpx2.Client) -> None:
    etag = hot(client, READS[0]).headers["etag"]
    before = answered(client)
    again = client.get(READS[0], headers={"if-none-match": f'"other", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert answered(client) == before + 1


def test_a_publish_is_in_the_next_answer(client: httpx2.Client) -> None:
    for number in range(20):
        hot(client, READS[0])
        published = upload(client, package("demo", body=f"Edit {number}.")).json()["data"]
        assert client.get(READS[0]).json()["data"]["digest"] == published["digest"]
        newest = client.get(READS[1]).json()["data"]["items"][0]
        assert (newest["version"], newest["active"]) == (published["version"], True)


@pytest.fixture
def socket(keyed: Service) -> Iterator[ClientConnection]:
    address = f"{keyed.url.replace('http', 'ws', 1)}/ws"
    with connect(address, additional_headers={"authorization": f"Bearer {KEY}"}) as opened:
        yield opened


def called(socket: ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    answer: dict[str, Any] = json.loads(socket.recv(timeout=5))
    return answer


@pytest.mark.parametrize(("method", "path"), [("get_skill", READS[0]), ("list_versions", READS[1])])
def test_a_call_is_answered_as_the_route_does_at_every_level_and_right_after_a_write(
    client: httpx2.Client, socket: ClientConnection, method: str, path: str
) -> None:
    for number in range(5):
        upload(client, package("demo", body=f"Call {number}."))
        for more in ({"_meta": {"consistency": level}} if level else {} for level in ("", "bounded", "linearizable")):
            answer = called(socket, method, owner="main", name="demo", **more)
            assert answer["result"] == client.get(path, headers=TO_THE_ROUTE).json()["data"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"owner": "main", "name": "demo", "more": "x"}, -32602),
        ({"owner": "main"}, -32602),
        ({"owner": "main", "name": 7}, -32602),
        ({"owner": "main", "name": "demo", "_meta": {"consistency": "whatever"}}, -32602),
        ({"owner": "main", "name": "demo", "_meta": {"consistency": 7}}, -32602),
        ({"owner": "main", "name": "demo", "_meta": "x"}, -32602),
        ({"owner": "main/demo", "name": ""}, -32602),
        ({"owner": "main", "name": "absent"}, -32004),
    ],
)
def test_a_call_that_is_not_quite_right_is_refused_however_hot_the_skill(
    client: httpx2.Client, socket: ClientConnection, params: dict[str, Any], code: int
) -> None:
    hot(client, READS[0])
    assert called(socket, "get_skill", **params)["error"]["code"] == code


@pytest.mark.parametrize("key", ["", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_whoever_has_no_key_gets_nothing_from_it(client: httpx2.Client, key: str) -> None:
    hot(client, READS[0])
    before = answered(client)
    assert client.get(READS[0], headers={"authorization": key}).status_code == 401
    assert answered(client) == before


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/skills/main/demo?nothing=1", {}, 200),
        ("GET", "/skills/main/demo", {"x-consistency": "linearizable"}, 200),
        ("GET", "/skills/main/demo", {"x-consistency": "whatever"}, 400),
        ("GET", "/skills/main/absent", {}, 404),
        ("GET", "/skills/main/demo/", {}, 307),
        ("GET", "/skills/main/de%6Do", {}, 200),
        ("DELETE", "/skills/main/absent", {}, 404),
        ("GET", "/skills/main/demo", {"host": "a" * 400}, 421),
        ("GET", f"/skills/main/{'a' * 400}", {}, 422),
        ("GET", "/skills/main/demo", {"host": "evil.example", "origin": "http://other.example"}, 403),
    ],
)
def test_what_is_unusual_is_left_to_others(
    client: httpx2.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    hot(client, READS[0])
    assert client.request(method, path, headers=headers).status_code == status


def test_a_request_id_that_was_given_is_used_and_others_are_unlike_each_other(client: httpx2.Client) -> None:
    hot(client, READS[0])
    given = client.get(READS[0], headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "mine-1"
    ids = {client.get(READS[0]).headers["x-request-id"] for _ in range(20)}
    ids |= {client.get(READS[0], headers={"x-request-id": "not one!"}).headers["x-request-id"]}
    assert len(ids) == 21
