"""`skillwire watch` and `skillwire rpc` against a real service."""

import json
import subprocess
from pathlib import Path

from tests.support.service import command, environment, running, write_skill

WAIT_S = 60


def rpc(url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command("rpc", *words, "--url", url),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=environment(),
        check=False,
    )


def test_events_and_commands_reach_the_terminal(tmp_path: Path) -> None:
    skills = tmp_path / "skills"
    skills.mkdir()
    with running(skills, tmp_path / "data", embedder="off", redis_url="off") as service:
        position = json.loads(rpc(service.url, "ping").stdout)["position"]
        watching = subprocess.Popen(
            command("watch", "skills", "--url", service.url, "--since", position),
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        try:
            write_skill(skills, "watched")
            assert watching.stdout is not None
            event = json.loads(watching.stdout.readline())
            assert (event["kind"], event["data"]["id"]) == ("skill.published", "main/watched")
        finally:
            watching.kill()
            watching.wait(WAIT_S)
            assert watching.stdout is not None
            watching.stdout.close()

        found = rpc(service.url, "get_skill", '{"owner": "main", "name": "watched"}')
        assert json.loads(found.stdout)["id"] == "main/watched"
        missing = rpc(service.url, "get_skill", '{"owner": "main", "name": "nobody"}')
        assert missing.returncode == 1
        assert '"not_found"' in missing.stderr
        assert rpc(service.url, "get_skill", "[]").returncode == 1
        methods = {each["name"] for each in json.loads(rpc(service.url, "rpc.discover").stdout)["methods"]}
        assert {"publish", "call_tool", "subscribe", "rpc.discover"} <= methods
