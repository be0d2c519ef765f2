"""The console command `skillwire`."""

import asyncio
import io
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import httpx2
import uvloop
from pydantic import ValidationError

from gateway.auth import InsecureSettings
from gateway.logs import set_up_logs
from gateway.server import bind, serve
from gateway.stdio import serve_stdio
from services.failures import ServiceError
from services.settings import Settings
from services.skills.package import Package, find_roots, read_folder

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_PUBLISH_TIMEOUT_S = 60.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("skillwire"), prog_name="skillwire")
def main() -> None:
    """One live skill server for all of a team's AI agents.

    Settings come from options, then SKILLWIRE_* in the environment, then skillwire.toml.
    """


_storage_options = [
    click.option("--skills", "skills_dir", type=click.Path(path_type=Path), help="Folder to watch. [default: skills]"),
    click.option(
        "--data", "data_dir", type=click.Path(path_type=Path), help="Where data is kept. [default: .skillwire]"
    ),
]


def _with_storage_options(command: Any) -> Any:
    for option in reversed(_storage_options):
        command = option(command)
    return command


@main.command("serve")
@click.option("--host", help="Address to listen on; beyond this machine a key is needed. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 picks a free one. [default: 8080]")
@_with_storage_options
def serve_command(**options: Any) -> None:
    """Serve MCP, REST, WebSocket RPC, SSE and the dashboard."""
    settings = _settings(options)
    set_up_logs(settings.log_format, settings.log_level)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from error
    _run(serve(settings, listener))


@main.command("stdio")
@_with_storage_options
def stdio_command(**options: Any) -> None:
    """Speak MCP on stdin and stdout, for clients that start their servers."""
    settings = _settings(options)
    set_up_logs(settings.log_format, settings.log_level)
    _run(serve_stdio(settings))


@main.command()
@click.argument("package", type=click.Path(exists=True, path_type=Path))
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service to publish to.")
@click.option("--owner", default="main", show_default=True, help="The owner to publish under.")
@click.option("--key", envvar="SKILLWIRE_KEY", help="An API key. [env: SKILLWIRE_KEY]")
@click.option("--if-match", "if_match", help="Only when this digest is the active one.")
def publish(package: Path, url: str, owner: str, key: str | None, if_match: str | None) -> None:
    """Publish a package (a folder or a zip) to a running service."""
    data = zip_folder(package) if package.is_dir() else package.read_bytes()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if if_match:
        headers["if-match"] = if_match
    try:
        answer = httpx2.post(
            f"{url.rstrip('/')}/api/v1/skills",
            files={"file": (f"{package.stem}.zip", data, "application/zip")},
            data={"owner": owner},
            headers=headers,
            timeout=_PUBLISH_TIMEOUT_S,
        )
        body = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise click.ClickException(
            f"{url} does not answer as Skillwire does: {error}; is `skillwire serve` running?"
        ) from error
    if not answer.is_success:
        raise click.ClickException(f"{body.get('detail', answer.text)} ({body.get('code', answer.status_code)})")
    made = body["data"]
    word = "published" if made["changed"] else "already active:"
    click.echo(f"{word} {made['id']} version {made['version']} {made['digest']}")


@main.command()
@click.argument("folder", type=_FOLDER)
@click.option("--strict", is_flag=True, help="Fail for anything below the strict grade.")
def validate(folder: Path, strict: bool) -> None:
    """Judge every package in or under FOLDER, with line numbers and hints."""
    roots = find_roots(folder)
    if not roots:
        raise click.ClickException(f"there is no SKILL.md in or under {folder}")
    failed = 0
    for root in roots:
        package = read_folder(root)
        failed += package.grade == "quarantined" or (strict and package.grade != "strict")
        _print_judgement(root, package)
    click.echo(f"{len(roots)} packages, {failed} failed")
    sys.exit(1 if failed else 0)


def zip_folder(folder: Path) -> bytes:
    """The package as a zip, without what editors and systems leave behind."""
    buffer = io.BytesIO()
    package = read_folder(folder)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(package.files.items()):
            archive.writestr(f"{folder.resolve().name}/{path}", content)
    return buffer.getvalue()


def _print_judgement(root: Path, package: Package) -> None:
    click.echo(f"{package.grade:<11} {root}  {package.digest}")
    for found in package.diagnostics:
        place = found.path + (f":{found.line}" if found.line else "")
        hint = f" -- {found.hint}" if found.hint else ""
        click.echo(f"  {found.severity}: {place + ': ' if place else ''}{found.message}{hint}")


def _settings(options: dict[str, Any]) -> Settings:
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise click.ClickException("the settings are not valid: " + "; ".join(lines)) from error


def _run(service: Any) -> None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(service)
    except (InsecureSettings, ServiceError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
