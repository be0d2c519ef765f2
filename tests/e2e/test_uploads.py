"""A large package in parts: sent in any order, to any replica, again and again."""

import hashlib
import os

import httpx2
import pytest

from services.skills.uploads import PART_BYTES_MAX
from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, get


def parts_of(data: bytes, size: int = PART_BYTES_MAX) -> dict[str, bytes]:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return {hashlib.sha256(part).hexdigest(): part for part in parts}


def put(service: Service, name: str, part: bytes) -> httpx2.Response:
    return httpx2.put(f"{service.url}/api/v1/uploads/{name}", content=part, timeout=10)


def join(service: Service, names: list[str], **more: object) -> httpx2.Response:
    return httpx2.post(f"{service.url}/api/v1/uploads", json={"parts": names, **more}, timeout=10)


def is_there(service: Service, name: str) -> int:
    return httpx2.head(f"{service.url}/api/v1/uploads/{name}", timeout=5).status_code


def test_a_package_in_parts_is_published_as_one(service: Service) -> None:
    data = zip_of({"SKILL.md": skill_md("in-parts"), "asset.bin": os.urandom(PART_BYTES_MAX + 1000)})
    parts = parts_of(data)
    assert len(parts) == 2
    first, second = parts
    assert is_there(service, first) == 404
    answer = put(service, second, parts[second])
    assert (answer.status_code, answer.json()["data"]) == (201, {"sha256": second, "size": len(parts[second])})

    early = join(service, [first, second])
    assert (early.status_code, early.json()["code"], early.json()["parts"]) == (404, "part_missing", [first])

    for _ in range(2):  # a part that is there is taken again
        assert put(service, first, parts[first]).status_code == 201
    assert is_there(service, first) == 200
    made = join(service, [first, second]).json()["data"]
    assert (made["id"], made["version"], made["changed"]) == ("main/in-parts", 1, True)
    assert get(service, "/skills/main/in-parts")["digest"] == made["digest"]

    again = join(service, [first, second]).json()["data"]
    assert (again["version"], again["changed"]) == (1, False)
    stale = join(service, [first, second], if_match="sha256:" + "0" * 64)
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")


def test_a_part_that_is_not_what_it_says_is_refused_and_not_kept(service: Service) -> None:
    name = hashlib.sha256(b"what it says").hexdigest()
    answer = put(service, name, b"what it is")
    assert (answer.status_code, answer.json()["code"]) == (400, "part_mismatch")
    assert is_there(service, name) == 404
    assert put(service, hashlib.sha256(b"").hexdigest(), b"").status_code == 400
    large = bytes(PART_BYTES_MAX + 1)
    assert put(service, hashlib.sha256(large).hexdigest(), large).json()["code"] == "too_large"


@pytest.mark.parametrize("name", ["x", "A" * 64, "0" * 65, "..%2f" * 3])
def test_a_name_that_is_no_sha_256_is_refused(service: Service, name: str) -> None:
    assert put(service, name, b"x").status_code in (404, 422)


def test_an_upload_that_joins_to_too_much_is_refused(service: Service) -> None:
    part = os.urandom(PART_BYTES_MAX)
    name = hashlib.sha256(part).hexdigest()
    assert put(service, name, part).status_code == 201
    answer = join(service, [name] * 100)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert join(service, [name] * 513).status_code == 422
    assert join(service, []).status_code == 422
