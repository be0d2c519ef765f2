"""The documentation names what the code has, and the code has what the documentation names."""

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any, cast, get_args

import click
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from gateway.__main__ import main
from gateway.failures import rpc_error, status_of
from gateway.mcp.meta_tools import META_TOOLS
from gateway.operations import OPERATIONS
from gateway.replica import Replica
from gateway.routes.admin import admin_router
from gateway.routes.packages import packages_router
from gateway.routes.probes import Draining, probes_router
from gateway.routes.push import push_router, rpc_registry
from gateway.routes.rest import rest_router
from gateway.routes.uploads import uploads_router
from notifier.close_codes import CLOSE_CODES, reconnects
from notifier.events import ResetReason
from notifier.metrics import REGISTRY as PUSH_REGISTRY
from notifier.topics import LOG_TOPICS, RUN_TOPIC, STATE_TOPICS
from services import failures
from services.audit.chain import Problem
from services.metrics import REGISTRY
from services.ports import ReloadKind
from services.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("services", "notifier", "gateway")
DOCUMENTS = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
# Routers only keep it for later; nothing here handles a request.
NO_REPLICA = cast(Replica, None)
# The SDK's names for the methods it hands on.
SDK_HANDLERS = {
    "list_tools": "tools/list",
    "call_tool": "tools/call",
    "list_resources": "resources/list",
    "list_resource_templates": "resources/templates/list",
    "read_resource": "resources/read",
    "subscriptions_listen": "subscriptions/listen",
    "list_prompts": "prompts/list",
    "get_prompt": "prompts/get",
    "completion": "completion/complete",
}
ERRORS = {
    name: kind
    for name, kind in vars(failures).items()
    if isinstance(kind, type) and issubclass(kind, failures.ServiceError)
}

Row = dict[str, str]

_SPAN = re.compile(r"^`([^`]*)`$")


def table(document: str, *columns: str) -> list[Row]:
    """Rows of every table of a document with exactly these columns; a cell that is code comes without its marks."""
    rows: list[Row] = []
    header: list[str] = []
    for line in (ROOT / "docs" / document).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif tuple(header) == columns and not set(cells[0]) <= {"-"}:
            rows.append(dict(zip(header, [_SPAN.sub(r"\1", cell) for cell in cells], strict=True)))
    assert rows, f"docs/{document} has no table {columns}"
    return rows


def column(rows: list[Row], name: str) -> list[str]:
    values = [row[name] for row in rows]
    assert len(set(values)) == len(values), f"something stands twice: {sorted(values)}"
    return values


def sources() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def text_of(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_setting_is_documented_with_its_default_and_reader() -> None:
    rows = table("operations.md", "environment", "`skillwire.toml`", "default", "meaning", "read by")
    by_name = {row["`skillwire.toml`"]: row for row in rows}
    assert set(by_name) == set(Settings.model_fields)
    for name, row in by_name.items():
        default = Settings.model_fields[name].default
        shown = {"empty": "", "[]": ()}.get(row["default"], row["default"])
        assert row["environment"] == f"SKILLWIRE_{name.upper()}"
        assert str(default) == str(shown), name
        if row["read by"] != "nobody":
            read = (ROOT / row["read by"]).read_text()
            through = {"database_url": "resolved_database_url"}.get(name, name)
            assert re.search(rf"settings\.{through}\b", read), f"{row['read by']} does not read {name}"


def test_every_metric_is_documented_with_its_type() -> None:
    documented = {row["metric"]: row["type"] for row in table("operations.md", "metric", "type", "meaning")}
    defined = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for registry in (REGISTRY, PUSH_REGISTRY)
        for metric in registry.collect()
    }
    assert documented == defined


def test_every_command_of_the_command_line_is_documented() -> None:
    rows = {row["command"]: row["what it does"] for row in table("operations.md", "command", "what it does")}
    context = click.Context(main)
    commands = {name: main.get_command(context, name) for name in main.list_commands(context)}
    assert set(rows) == {f"skillwire {name}" for name in commands}
    for name, command in commands.items():
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert set(re.findall(r"`(--[a-z-]+)`", rows[f"skillwire {name}"])) == options, name


def routes_of(router: APIRouter) -> set[tuple[str, str, str]]:
    """(method, path, operation) of each route; HEAD comes along with GET."""
    return {
        (method, route.path.replace(":path}", "}"), route.operation_id or route.path)
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in (route.methods if route.methods == {"HEAD"} else (route.methods or set()) - {"HEAD"})
    }


def test_every_rest_address_is_documented() -> None:
    rows = table("protocol.md", "method", "path", "operation", "scope")
    documented = {(row["method"], row["path"], row["operation"]) for row in rows}
    served = routes_of(rest_router(NO_REPLICA, OPERATIONS)) | routes_of(packages_router(NO_REPLICA))
    served |= routes_of(uploads_router(NO_REPLICA))
    served |= routes_of(push_router(NO_REPLICA, rpc_registry(NO_REPLICA, OPERATIONS)))
    served |= routes_of(admin_router(NO_REPLICA))
    assert documented == served


def test_every_probe_is_documented() -> None:
    documented = set(column(table("operations.md", "path", "answer"), "path"))
    assert documented == {path for _, path, _ in routes_of(probes_router(NO_REPLICA, Draining()))}


def test_every_rpc_command_is_documented() -> None:
    documented = set(column(table("protocol.md", "command", "scope", "what"), "command"))
    assert documented == set(rpc_registry(NO_REPLICA, OPERATIONS).names) | connection_commands()


def connection_commands() -> set[str]:
    """What `notifier/websocket.py` adds for its own connection."""
    tree = ast.parse((ROOT / "notifier" / "websocket.py").read_text())
    [local] = [node for node in ast.walk(tree) if getattr(node, "name", "") == "_local_commands"]
    [commands] = [node for node in ast.walk(local) if isinstance(node, ast.Dict)]
    return {text for key in commands.keys if (text := text_of(key))}


def test_scopes_are_those_of_the_operation_table() -> None:
    scopes: dict[str, str] = {operation.name: operation.scope for operation in OPERATIONS}
    rest = {row["operation"]: row["scope"] for row in table("protocol.md", "method", "path", "operation", "scope")}
    rpc = {row["command"]: row["scope"] for row in table("protocol.md", "command", "scope", "what")}
    for documented in (rest, rpc):
        common = documented.keys() & scopes.keys()
        assert {name: documented[name] for name in common} == {name: scopes[name] for name in common}


def error_codes() -> tuple[dict[str, set[type[failures.ServiceError]]], dict[str, set[int]]]:
    """Every code in the sources: those of exceptions with their classes, those of problems with their status."""
    raised: dict[str, set[type[failures.ServiceError]]] = defaultdict(set)
    answered: dict[str, set[int]] = defaultdict(set)
    for kind in ERRORS.values():
        raised[kind.code].add(kind)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                _codes_of_call(node, raised, answered)
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if text_of(key) == "code" and (code := text_of(value)):
                        answered.setdefault(code, set())
                    if path.name == "app.py" and isinstance(key, ast.Constant) and isinstance(key.value, int):
                        answered[text_of(value) or ""].add(key.value)
            elif isinstance(node, ast.ClassDef) and node.name == "_Problem":
                for code in _literals(node):
                    raised[code].add(failures.ToolFailed)
    return raised, answered


def _codes_of_call(
    node: ast.Call, raised: dict[str, set[type[failures.ServiceError]]], answered: dict[str, set[int]]
) -> None:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    code = next((text_of(keyword.value) for keyword in node.keywords if keyword.arg == "code"), None)
    if code is not None and name in ERRORS:
        raised[code].add(ERRORS[name])
    if name in ("problem", "_Refused") and len(node.args) > 1 and (told := text_of(node.args[1])):
        status = node.args[0]
        answered[told].update([status.value] if isinstance(status, ast.Constant) else [])  # type: ignore[list-item]
    if name == "get" and len(node.args) == 2 and text_of(node.args[1]) == "bad_request":
        answered["bad_request"].add(400)


def _literals(node: ast.ClassDef) -> set[str]:
    [code] = [
        each for each in node.body if isinstance(each, ast.AnnAssign) and getattr(each.target, "id", "") == "code"
    ]
    return {text for constant in ast.walk(code.annotation) if (text := text_of(constant))}


def test_every_error_code_is_documented_with_its_status_and_rpc_number() -> None:
    rows = {row["code"]: row for row in table("protocol.md", "code", "HTTP", "RPC", "when")}
    raised, answered = error_codes()
    assert set(rows) == set(raised) | set(answered)
    for code, kinds in raised.items():
        for kind in kinds:
            error = kind("an example")
            assert str(status_of(error)) in rows[code]["HTTP"].split(", "), (code, kind)
            assert rows[code]["RPC"] == str(rpc_error(error).code), (code, kind)
    for code, statuses in answered.items():
        assert {str(status) for status in statuses} <= set(rows[code]["HTTP"].split(", ")), code


def test_every_rpc_error_number_is_documented() -> None:
    documented = {row["number"] for row in table("protocol.md", "number", "meaning")}
    documented |= {row["RPC"] for row in table("protocol.md", "code", "HTTP", "RPC", "when")} - {"-"}
    defined = {str(rpc_error(kind("an example")).code) for kind in ERRORS.values()}
    for module in ("protocol.py", "rpc.py"):
        text = (ROOT / "notifier" / module).read_text()
        defined |= set(re.findall(r"^[A-Z_]+ = (-32\d{3})$", text, re.MULTILINE))
    assert documented == defined


def test_every_close_code_is_documented_with_what_it_asks_for() -> None:
    rows = table("protocol.md", "code", "reason", "reconnect", "when")
    documented = {(int(row["code"]), row["reason"], row["reconnect"]) for row in rows}
    assert documented == {
        (close.code, close.reason, "yes" if reconnects(close.code) else "no") for close in CLOSE_CODES
    }


def test_every_topic_is_documented_with_its_kind() -> None:
    documented = {row["topic"]: row["kind"] for row in table("protocol.md", "topic", "kind", "what it carries")}
    assert documented == dict.fromkeys(LOG_TOPICS, "log") | dict.fromkeys(STATE_TOPICS | {RUN_TOPIC}, "state")


def test_every_kind_of_change_is_documented() -> None:
    rows = table("protocol.md", "topic", "kind", "what it carries")
    documented = {kind for row in rows for kind in re.findall(r"\b[a-z]+\.[a-z]+\b", row["what it carries"])}
    writers = (
        "services/storage/publishing.py",
        "services/storage/upkeep.py",
        "services/storage/incident_rules.py",
        "services/storage/adoption.py",
        "services/storage/ranking.py",
        "gateway/live_states.py",
    )
    text = "".join((ROOT / path).read_text() for path in writers)
    kinds = set(re.findall(r'"((?:skill|tools|solution|incident)\.[a-z]+)"', text))
    telemetry = (ROOT / "gateway" / "telemetry.py").read_text()
    kinds |= {f"{topic}.changed" for topic in re.findall(r'\("([a-z]+)", (?:await )?state\.', telemetry)}
    assert documented == kinds


def test_every_kind_of_reload_is_documented() -> None:
    assert set(get_args(ReloadKind)) <= set(re.findall(r"`([a-z.]+)`", (ROOT / "docs" / "protocol.md").read_text()))


def test_every_finding_of_the_audit_is_documented() -> None:
    rows = table("operations.md", "it says", "what was done")
    said = [problem for row in rows for problem in row["it says"].replace("`", "").split(", ")]
    assert sorted(said) == sorted(get_args(Problem))


def test_every_reset_reason_is_documented() -> None:
    assert set(column(table("protocol.md", "reason", "meaning"), "reason")) == set(get_args(ResetReason))


def test_every_tool_of_the_mcp_server_is_documented_with_its_arguments() -> None:
    documented = {row["tool"]: row["arguments"] for row in table("protocol.md", "tool", "scope", "arguments")}
    assert set(documented) == set(META_TOOLS)
    for name, tool in META_TOOLS.items():
        assert set(re.findall(r"`(\w+)`", documented[name])) == set(tool.params.model_fields), name


def test_every_mcp_method_is_documented() -> None:
    rows = table("protocol.md", "method", "answer")
    documented = {method for row in rows for method in re.findall(r"[a-z]+(?:/[A-Za-z]+)+", row["method"])}
    text = (ROOT / "gateway" / "mcp" / "sdk" / "server.py").read_text()
    served = set(re.findall(r'add_request_handler\("([A-Za-z/]+)"', text))
    served |= {SDK_HANDLERS[name] for name in re.findall(r'\bon_([a-z_]+)(?:"|=)', text)}
    assert documented == served


def test_followers_are_documented_in_the_order_in_which_they_are_told() -> None:
    documented = column(table("architecture.md", "order", "follower", "why here"), "follower")
    found = re.search(r"followers: .* = \((.*)\)", (ROOT / "gateway" / "wiring.py").read_text())
    assert found is not None
    assert documented == found[1].split(", ")


def test_every_folder_of_the_packages_is_in_the_architecture() -> None:
    named = set(column(table("architecture.md", "folder", "what is in it"), "folder"))
    folders = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for package in PACKAGES
        for path in (ROOT / package).rglob("[!_]*.py")
    }
    assert folders <= named


def test_parts_are_documented_in_the_order_in_which_they_close() -> None:
    text = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    found = re.search(r"in reverse order of opening: ([a-z, ]+)\.", text)
    assert found is not None
    opened = "".join((ROOT / "gateway" / name).read_text() for name in ("wiring.py", "backends.py"))
    assert sorted(found[1].split(", ")) == sorted(re.findall(r'\bclosing\(stack, "([a-z ]+)"', opened))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target
    for named in re.findall(r"`((?:services|notifier|gateway|tests|scripts|docs|k8s|deploy)/[\w./-]*)`", text):
        assert (ROOT / named).exists(), named


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("record", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_record_is_short_and_complete(record: Path) -> None:
    text = record.read_text()
    assert len(text.splitlines()) <= 60
    assert text.startswith(f"# {record.stem[:4]} ")
    for part in ("* Status: ", "* Area: ", "* Date: 20"):
        assert part in text, part
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences", "Alternatives", "Files"]


def test_decision_records_are_numbered_once_each() -> None:
    numbers = [int(record.name[:4]) for record in DECISIONS]
    assert len(set(numbers)) == len(numbers)


def test_newest_entry_of_the_changelog_is_the_projects_version() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(each for each in versions if each != "Unreleased") == project["project"]["version"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_emoji_stands_in_a_document(document: Path) -> None:
    assert not re.findall("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\ufe0f]", document.read_text())
