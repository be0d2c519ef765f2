"""Starting, stopping and starting again, as an operator meets it."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest
import websockets

from tests.support import listeners
from tests.support.service import command, environment, get, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio


async def test_sigterm_ends_streams_with_a_resumable_close_and_exits_zero(tmp_path: Path) -> None:
    write_skill(tmp_path / "skills", "one")
    with running(tmp_path / "skills", tmp_path / "data") as service:
        wait_for_skills(service, 1)
        async with (
            websockets.connect(f"{service.url.replace('http', 'ws', 1)}/ws") as socket,
            httpx2.AsyncClient(base_url=service.url, timeout=5) as client,
            client.stream("GET", "/events") as stream,
        ):
            lines = stream.aiter_lines()
            assert "hello" in await anext(lines)
            service.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                bye = json.loads(await socket.recv())
                with pytest.raises(websockets.ConnectionClosed) as closed:
                    await socket.recv()
            rest = [line async for line in lines]
        assert bye["method"] == "bye"
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3001
        assert "event: bye" in rest
        assert service.stop() == 0
        assert "closing failed" not in "".join(service.log)


async def test_rollback_and_history_survive_a_restart(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    write_skill(skills, "one", body="First.")
    with running(skills, data) as service:
        wait_for_skills(service, 1)
        async with listeners.ws(service.url) as events, httpx2.AsyncClient(base_url=service.url) as client:
            write_skill(skills, "one", body="Second.")
            await events.next()
            answer = await client.post("/api/v1/skills/main/one/rollback", json={"version": 1})
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-seq"] == str(answer.json()["data"]["seq"])
            event = await events.next()
            assert event["kind"] == "skill.activated"
    with running(skills, data) as service:
        async with listeners.sse(service.url, topics="skills", since=event["id"]) as resumed:
            assert get(service, "/skills/main/one")["version"] == 1
            write_skill(skills, "one", body="Third.")
            assert (await resumed.next())["data"]["version"] == 3


async def test_kill_9_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    write_skill(skills, "one")
    with running(skills, data) as service:
        wait_for_skills(service, 1)
        digest = get(service, "/skills/main/one")["digest"]
        service.stop(signal.SIGKILL)
    with running(skills, data, watch="off") as service:
        assert get(service, "/skills/main/one")["digest"] == digest


async def test_two_replicas_on_one_data_folder_tell_each_others_clients(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    write_skill(skills, "one")
    with running(skills, data) as first, running(skills, data) as second:
        wait_for_skills(second, 1)
        async with listeners.ws(first.url) as here, listeners.sse(second.url) as there:
            write_skill(skills, "two")
            assert await here.next() == await there.next()
            assert get(first, "/skills/main/two") == get(second, "/skills/main/two")


def test_beyond_loopback_it_refuses_to_start_without_a_key(tmp_path: Path) -> None:
    done = _serve(tmp_path, "--host", "0.0.0.0")
    assert done.returncode == 1
    assert "SKILLWIRE_ADMIN_KEY" in done.stderr
    short = _serve(tmp_path, "--host", "0.0.0.0", admin_key="hunter2")
    assert short.returncode == 1
    assert "32 characters" in short.stderr


async def test_with_a_key_everything_but_probes_and_the_page_asks_for_it(tmp_path: Path) -> None:
    key = "k" * 32
    write_skill(tmp_path / "skills", "one")
    with running(tmp_path / "skills", tmp_path / "data", admin_key=key) as service:
        async with httpx2.AsyncClient(base_url=service.url) as client:
            for path in ("/livez", "/readyz", "/health", "/"):
                assert (await client.get(path)).status_code == 200, path
            for path in ("/api/v1/skills", "/events", "/openapi.json", "/mcp"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
                assert answer.headers["www-authenticate"] == "Bearer"
            assert (await client.get("/api/v1/skills", params={"key": key})).status_code == 401
            await _is_turned_away(f"{service.url.replace('http', 'ws', 1)}/ws")
            client.headers["authorization"] = f"Bearer {key}"
            assert (await client.get("/api/v1/skills")).status_code == 200
            ticket = (await client.post("/api/v1/tickets")).json()["data"]["ticket"]
        url = f"{service.url.replace('http', 'ws', 1)}/ws?ticket={ticket}"
        async with websockets.connect(url) as socket:
            await socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "get_stats"}))
            assert "result" in json.loads(await socket.recv())
        await _is_turned_away(url)  # a ticket opens one stream


async def _is_turned_away(url: str) -> None:
    """By a close code that tells a browser not to come back; it could not read the status of a refused handshake."""
    async with websockets.connect(url) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3500


def test_a_port_in_use_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "skills").mkdir()
    with running(tmp_path / "skills", tmp_path / "data") as service:
        done = _serve(tmp_path, "--port", str(service.port))
    assert done.returncode == 1
    assert "choose another with --port" in done.stderr


def test_an_unknown_or_wrong_setting_is_named(tmp_path: Path) -> None:
    done = _serve(tmp_path, workers_max="many")
    assert done.returncode == 1
    assert "workers_max" in done.stderr


def test_a_foreign_database_url_is_refused_with_the_reason(tmp_path: Path) -> None:
    done = _serve(tmp_path, database_url="mysql://u:secret@h/d")
    assert done.returncode == 1
    assert "sqlite:///" in done.stderr
    assert "secret" not in done.stderr


def _serve(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """`skillwire serve` that is expected not to come up."""
    (folder / "skills").mkdir(exist_ok=True)
    defaults = ["--port", "0", "--skills", str(folder / "skills"), "--data", str(folder / "data")]
    return subprocess.run(
        command("serve", *defaults, *arguments),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=environment(**settings),
    )
