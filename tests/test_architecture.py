"""House rules that hold for the whole tree: budgets, owners, and nothing that nobody uses.

Layers are import-linter's (`pyproject.toml`); what ruff and mypy can say is left to them.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("services", "notifier", "gateway")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
SCREENS = sorted((ROOT / "frontend" / "src").rglob("*.tsx"))

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
CLASS_LINES_MAX = 300
SCREEN_LINES_MAX = 250
TOO_LONG_ON_PURPOSE = {
    "gateway/wiring.py:open_replica": "the one list of what is opened and in which order; split, the order is lost",
}

VAGUE = re.compile(
    r"(.*_)?(manager|helpers?|utils?|common|misc|engine|unified.*|enhanced.*|advanced.*|smart.*|base_service|handlers?"
    r"|v\d+|new|old)"
)

# Where a task may be made outside a TaskGroup: supervisors that keep it and await its end in `close`.
TASK_OWNERS = (
    "notifier/",
    "services/audit/",
    "services/execution/",
    "services/cache/",
    "services/changes/",
    "services/errors/",
    "services/search/",
    "services/presence.py",
    "services/runs/",
    "services/skills/ranking.py",
    "services/skills/watcher.py",
    "services/storage/dynamodb_appender.py",
    "services/storage/invocations.py",
    "services/storage/readable_s3.py",
    "services/storage/retention.py",
    "gateway/closing.py",
    "gateway/server.py",
    "gateway/wiring.py",
    "gateway/first_call.py",
    "gateway/mcp/push.py",
    "gateway/mcp/sdk/dialogue.py",
    "gateway/mcp/sdk/legacy.py",
    "gateway/mcp/sdk_app.py",
    "gateway/telemetry.py",
)
_TASK_MAKERS = {"create_task", "ensure_future", "gather"}

WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "mcp", "websockets", "sse_starlette", "gateway", "notifier"}
# Run in a process of their own, or need an extra that is not always installed.
NOT_IMPORTED = {
    "services.execution.worker",
    "services.search.embed_child",
    "services.search.milvus_index",
    "services.storage.postgres",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def test_no_file_is_over_its_budget() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in (*SOURCES, *SCRIPTS, *TESTS)}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}
    screens = {name_of(path): len(path.read_text().splitlines()) for path in SCREENS}
    assert {name: count for name, count in screens.items() if count > SCREEN_LINES_MAX} == {}


def test_no_function_or_class_is_over_its_budget() -> None:
    too_long: dict[str, int] = {}
    for path in (*SOURCES, *SCRIPTS, *TESTS):
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                bound = FUNCTION_LINES_MAX
            elif isinstance(node, ast.ClassDef):
                bound = CLASS_LINES_MAX
            else:
                continue
            if lines_of(node) > bound:
                too_long[f"{name_of(path)}:{node.name}"] = lines_of(node)
    assert set(too_long) == set(TOO_LONG_ON_PURPOSE), too_long


def test_every_setting_is_read() -> None:
    """A rate limit that was configured and never enforced is how this rule began (style.md, example b)."""
    settings = ROOT / "services" / "settings.py"
    properties = {
        node.name: {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
        for node in nodes(settings)
        if isinstance(node, ast.FunctionDef)
        and any(getattr(each, "id", "") == "property" for each in node.decorator_list)
    }
    read = {
        node.attr
        for path in SOURCES
        if path != settings
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _names_settings(node.value)
    }
    for name in properties.keys() & read:
        read |= properties[name]
    assert set(Settings.model_fields) - read == set()


def _names_settings(node: ast.expr) -> bool:
    return getattr(node, "id", getattr(node, "attr", "")).lstrip("_") == "settings"


def test_every_metric_is_moved() -> None:
    unused: list[str] = []
    for package in ("services", "notifier"):
        path = ROOT / package / "metrics.py"
        tree = ast.parse(path.read_text())
        defined = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id.islower()
        }
        used = {
            name
            for source in SOURCES
            if source != path
            for node in nodes(source)
            if isinstance(node, ast.Attribute | ast.Name)
            and (name := node.attr if isinstance(node, ast.Attribute) else node.id)
            and (isinstance(node, ast.Name) or getattr(node.value, "id", "") == "metrics")
        }
        assert defined
        unused += [f"{package}: {name}" for name in sorted(defined - used)]
    assert unused == []


def test_no_module_has_a_vague_name() -> None:
    assert [name_of(path) for path in (*SOURCES, *SCRIPTS) if VAGUE.fullmatch(path.stem)] == []


def test_nothing_of_ours_prints() -> None:
    """Answers of commands go through `click.echo`, everything else through the log."""
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert prints == []


def test_tasks_are_made_by_their_owners_alone() -> None:
    strays = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if not name_of(path).startswith(TASK_OWNERS)
        for node in nodes(path)
        if isinstance(node, ast.Call) and _makes_a_task(node.func)
    ]
    assert strays == []


def _makes_a_task(called: ast.expr) -> bool:
    """True for `asyncio.create_task`, `loop.create_task`, `gather`, ...; not for a task group's."""
    if isinstance(called, ast.Name):
        return called.id in _TASK_MAKERS
    return (
        isinstance(called, ast.Attribute) and called.attr in _TASK_MAKERS and getattr(called.value, "id", "") != "group"
    )


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=name_of)
def test_every_suppression_names_a_code_and_a_reason(path: Path) -> None:
    """The reason stands behind the code, or as a comment on the line above."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        found = re.search(r"#\s*(noqa|type:\s*ignore|pragma:\s*no cover)(.*)$", line)
        if found is None:
            continue
        kind, rest = found[1], found[2]
        code = re.match(r":\s*[A-Z]+\d+" if kind == "noqa" else r"\[[a-z, -]+\]" if "ignore" in kind else r"", rest)
        reason = re.search(r"(?:#|\s-)\s*\S", rest) or lines[number - 2].lstrip().startswith("#")
        assert code, f"{name_of(path)}:{number} names no code"
        assert reason, f"{name_of(path)}:{number} gives no reason"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_suppression_in_a_test_names_a_code(path: Path) -> None:
    bare = re.compile(r"#\s*(?:noqa(?!: ?[A-Z]+\d)|type:\s*ignore(?!\[))")
    comments = [line.rpartition('"')[2] for line in path.read_text().splitlines()]
    assert [line for line in comments if bare.search(line)] == []


def test_the_business_layer_loads_no_web_framework() -> None:
    modules = {
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in SOURCES
        if name_of(path).startswith("services/")
    }
    imports = "".join(f"import {module}\n" for module in sorted(modules - NOT_IMPORTED))
    code = f"{imports}import sys\nsys.stdout.write(' '.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert loaded & WEB_FRAMEWORKS == set()
