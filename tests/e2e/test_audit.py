"""The audit log of a running service: who changed what and when, over restarts and kills, and what a forger leaves."""

import asyncio
import json
import re
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.audit.chain import Seal
from services.audit.nouns import AuditQuery
from services.audit.sealing import LEASE, LOOK_S, TTL_S
from services.audit.verification import verify
from tests.support.listeners import eventually
from tests.support.packages import skill_md, zip_of
from tests.support.replicas import two_replicas
from tests.support.service import Service, running, skillwire, write_skill
from tests.support.stores import audit_of, open_store

pytestmark = pytest.mark.anyio

KEY = "an admin key of more than 32 characters"
AUDIT_KEY = "an audit key of more than 32 characters"
OFF = {"embedder": "off", "redis_url": "off"}
SETTINGS = {"admin_key": KEY, "audit_key": AUDIT_KEY, **OFF}
SKILL = "/skills/main/uploaded"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def call(service: Service, method: str, path: str, status: int = 200, **request: Any) -> Any:
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=f"{service.url}/api/v1", timeout=20, headers=headers) as client:
        answer = await client.request(method, path, **request)
    assert answer.status_code == status, answer.text
    return answer.json().get("data")


async def publish(service: Service, body: str, name: str = "uploaded") -> None:
    package = zip_of({"SKILL.md": skill_md(name, body=body)})
    await call(service, "POST", "/skills", 201, files={"file": ("a.zip", package)})


async def audited(service: Service, **params: Any) -> list[Any]:
    items: list[Any] = (await call(service, "GET", "/audit", params={"limit": 500, **params}))["items"]
    return items


async def is_sealed(service: Service) -> bool:
    """Everything that this replica knows of."""
    return bool((await call(service, "GET", "/audit/head"))["lag"] == 0)


def noted(head: Any) -> str:
    return f"{head['seq']}:{head['hash']}"


def verified(data: Path, *options: str, audit_key: str = AUDIT_KEY) -> tuple[int, str]:
    done = skillwire("audit", "verify", *options, data_dir=str(data), audit_key=audit_key)
    return done.returncode, done.stdout or done.stderr


async def change_everything(service: Service, skills: Path) -> None:
    await publish(service, "one")
    await publish(service, "two")
    await call(service, "POST", f"{SKILL}/rollback", json={"version": 1})
    await call(service, "DELETE", SKILL)
    write_skill(skills, "watched", "As it was.")
    await call(service, "POST", "/cache/hot-reload", json={})
    write_skill(skills, "watched", "As it is.")
    await call(service, "POST", "/cache/reload", json={"skill_id": "main/watched"})
    await call(service, "POST", "/cache/invalidate", json={"skill_id": "main/watched"})
    await call(service, "POST", "/cache/invalidate", json={})
    assert await eventually(lambda: is_sealed(service))


async def test_everything_that_was_done_is_told_with_who_and_when(tmp_path: Path) -> None:
    (tmp_path / "skills").mkdir()
    with running(tmp_path / "skills", tmp_path / "data", **SETTINGS) as service:
        await change_everything(service, tmp_path / "skills")
        told = [(item["kind"], item["subject"], item["by"]) for item in reversed(await audited(service))]
        watched = ("skill.published", "skill:main/watched", "watcher")
        # A save is also seen by the watcher itself, before the reload or after it.
        assert told.count(watched) == 2
        assert [each for each in told if each != watched] == [
            ("skill.published", "skill:main/uploaded", "admin"),
            ("skill.published", "skill:main/uploaded", "admin"),
            ("skill.activated", "skill:main/uploaded", "admin"),
            ("skill.deleted", "skill:main/uploaded", "admin"),
            ("reload.folder", "reloads", "admin"),
            ("reload.skill", "reloads:main/watched", "admin"),
            ("cache.invalidated", "reloads:main/watched", "admin"),
            ("cache.invalidated", "reloads", "admin"),
        ]

        everything = await audited(service)
        assert all(STAMP.fullmatch(item["at"]) for item in everything)
        assert [item["seq"] for item in everything] == list(range(len(everything), 0, -1))
        assert everything[-1]["data"]["version"] == 1
        changes = (await call(service, "GET", "/changes", params={"limit": 500}))["items"]
        assert [item["data"] for item in reversed(everything)] == [change["data"] for change in changes]

        found = await audited(service, skill="main/watched", by="admin")
        assert [item["kind"] for item in found] == ["cache.invalidated", "reload.skill"]
        assert {item["kind"] for item in await audited(service, topic="skills", kind="skill.deleted")} == {
            "skill.deleted"
        }
        first = everything[-1]["at"]
        assert await audited(service, until=first) == []
        assert len(await audited(service, since=f"{first[:19]}Z")) == len(everything)
        pages: list[Any] = []
        cursor: dict[str, str] = {}
        for _ in range(len(everything) // 4 + 1):
            page = await call(service, "GET", "/audit", params={"limit": 4, **cursor})
            pages += page["items"]
            cursor = {"cursor": page["next_cursor"]}
        assert pages == everything
        assert page["next_cursor"] is None


async def test_who_may_not_see_it_and_what_is_not_a_question(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path / "data", **SETTINGS, watch="off") as service:
        nobody = httpx2.get(f"{service.url}/api/v1/audit", timeout=5)
        assert nobody.status_code == 401
        empty = {"seq": None, "hash": None, "sealed_at": None, "keyed": None, "lag": 0}
        assert await call(service, "GET", "/audit/head") == empty
        assert await audited(service) == []
        for wrong in (
            {"limit": 501}, {"limit": 0}, {"cursor": "0"}, {"cursor": "12345678901234567"}, {"skill": "a"},
            {"kind": "published"}, {"topic": "x" * 33}, {"by": "x" * 201}, {"since": "today"}, {"until": "1"}, {"x": 1},
        ):  # fmt: skip
            await call(service, "GET", "/audit", 422, params=wrong)


async def test_the_chain_goes_on_over_a_restart_and_a_forged_record_is_named(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    skills.mkdir()
    with running(skills, data, **SETTINGS) as service:
        await change_everything(service, skills)
        before = await audited(service)
        head = await call(service, "GET", "/audit/head")
        assert head["keyed"] is True
        metrics = httpx2.get(f"{service.url}/metrics", timeout=5).text
        assert f"skillwire_audit_head {float(head['seq'])}" in metrics
        assert verified(data)[0] == 0, "beside a running replica"
        assert service.stop(signal.SIGTERM) == 0
        assert any(head["hash"] in line for line in service.log), "told at the end"
    with running(skills, data, **SETTINGS) as service:
        await publish(service, "three")
        assert await eventually(lambda: is_sealed(service))
        after = await audited(service)
        assert after[-len(before) :] == before
        new = await call(service, "GET", "/audit/head")
    count = len(after)

    status, said = verified(data, "--head", noted(head), "--head", noted(new))
    assert (status, said) == (0, f"OK: {count} records from seq 1, keyed from seq 1; head {noted(new)}\n")
    exported = skillwire("audit", "export", data_dir=str(data)).stdout.splitlines()
    assert [json.loads(line) for line in exported] == after[::-1]

    assert verified(data, audit_key="")[1].startswith("BAD at seq 1: wrong key")
    assert verified(data, audit_key="another key of more than 32 characters")[0] == 1
    short = skillwire("audit", "verify", data_dir=str(data), audit_key="short")
    assert short.returncode == 1
    assert "audit_key needs at least 32 characters" in short.stderr
    with closing(sqlite3.connect(data / "skillwire.db")) as connection, connection:
        connection.execute("DELETE FROM audit WHERE seq = ?", (count,))
    assert verified(data)[1].endswith("1 changes are not sealed yet\n")
    assert verified(data, "--head", noted(new))[1].startswith(f"BAD at seq {count}: cut")
    with closing(sqlite3.connect(data / "skillwire.db")) as connection, connection:
        connection.execute("UPDATE audit SET by = 'nobody' WHERE seq = 3")
    assert verified(data) == (1, "BAD at seq 3: changed: its hash is not that of its content\n")


@pytest.mark.timeout(300)
async def test_replicas_make_one_chain_and_the_one_that_is_killed_leaves_no_gap(
    tmp_path: Path, database_url: str
) -> None:
    with ExitStack() as stack:
        replicas = two_replicas(stack, database_url, tmp_path)
        ids = [str((await call(service, "GET", "/status"))["replica"]) for service in replicas]
        store = await open_store(database_url)
        try:
            holder: str | None = None
            for number in range(20):
                await publish(replicas[number % 2], f"text {number}")
                holder = holder or await store.lease_holder(LEASE)
            holder = holder or await eventually(lambda: store.lease_holder(LEASE))
            killed = replicas[ids.index(str(holder))]
            alive = next(service for service in replicas if service is not killed)
            await publish(killed, "just before")
            killed.stop(signal.SIGKILL)
            await publish(alive, "just after")
            await within(TTL_S + 2 * LOOK_S + 5, lambda: is_sealed(alive))

            verdict = await verify(audit_of(store), store, Seal())
            assert (verdict.finding, verdict.first, verdict.records, verdict.unsealed) == (None, 1, 22, 0)
            kept = await audit_of(store).audit(AuditQuery(100, after=0))
            assert [record.seq for record in kept] == list(range(1, 23))
        finally:
            await store.close()


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  # nothing announces this
            await asyncio.sleep(0.1)
