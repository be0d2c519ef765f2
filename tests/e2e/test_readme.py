"""The README's calls, taken from its text and run as they stand against a real service."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import Service, get, write_skill

README = (Path(__file__).parents[2] / "README.md").read_text()
_BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
WAIT_S = 15.0


def block(service: Service, containing: str) -> list[str]:
    """The command that runs the one fenced block with this text, pointed at the test's own port."""
    found = [(language, code) for language, code in _BLOCK.findall(README) if containing in code]
    assert len(found) == 1, f"{len(found)} blocks contain {containing!r}"
    language, code = found[0]
    code = code.replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
    return ["bash", "-c", code] if language == "sh" else [sys.executable, "-c", code]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rest_call_answers_with_what_ran(service: Service) -> None:
    answer = json.loads(run(block(service, "/api/v1/tools/")))
    assert answer["success"] is True
    assert "5/6" in json.dumps(answer["data"]["result"])
    assert answer["data"]["digest"] == get(service, "/skills/main/calculator")["digest"]


def test_event_stream_shows_a_change(service: Service, skills: Path) -> None:
    with subprocess.Popen(block(service, "/events"), stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        try:
            for line in curl.stdout:
                if line.startswith("event: hello"):
                    write_skill(skills, "from-the-readme")
                if line.startswith("data: ") and '"from-the-readme"' in line:
                    break
            else:
                pytest.fail("the stream ended before the change was shown")
        finally:
            curl.terminate()


def test_websocket_call_finds_the_skill_within_its_budget(service: Service) -> None:
    answer = json.loads(run(block(service, "websockets.connect")))["result"]
    assert answer["items"][0]["id"] == "main/csv-data-summarizer"
    assert answer["tokens"] <= 300


def test_mcp_call_loads_a_skill(service: Service) -> None:
    printed = run(block(service, "mcp.client"))
    skill = get(service, "/skills/main/code-review")
    assert printed.startswith(f"{skill['version']} {skill['digest']} ")


@pytest.mark.parametrize("target", ["run", "test"])
def test_the_two_commands_are_targets(target: str) -> None:
    assert f"make {target}" in README
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
