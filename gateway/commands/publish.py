"""`skillwire publish`: a package from this machine to a running service."""

import io
import zipfile
from pathlib import Path

import click
import httpx2

from services.skills.package import read_folder

_TIMEOUT_S = 60.0


@click.command()
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
            timeout=_TIMEOUT_S,
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


def zip_folder(folder: Path) -> bytes:
    """The package as a zip, without what editors and systems leave behind."""
    buffer = io.BytesIO()
    package = read_folder(folder)
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(package.files.items()):
            archive.writestr(f"{folder.resolve().name}/{path}", content)
    return buffer.getvalue()
