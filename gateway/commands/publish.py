"""`skillwire publish`: a package, from this machine or from elsewhere, to a running service."""

from collections.abc import Callable
from contextlib import closing

import click

from gateway.commands.origins import zip_from
from gateway.commands.remote import Refused, Remote
from services.skills.uploads import PART_BYTES_MAX


def to_a_service(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that writes to a running service."""
    command = click.option("--key", envvar="SKILLWIRE_KEY", help="An API key. [env: SKILLWIRE_KEY]")(command)
    command = click.option("--owner", default="main", show_default=True, help="The owner to publish under.")(command)
    return click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The service to publish to.")(
        command
    )


@click.command()
@click.argument("package")
@to_a_service
@click.option("--if-match", "if_match", help="Only when this digest is the active one.")
@click.option("--no-activate", is_flag=True, help="Make the version, and leave the active one as it is.")
@click.option("--allow-private", is_flag=True, help="PACKAGE may be a URL on this machine or a private network.")
def publish(
    package: str,
    url: str,
    owner: str,
    key: str | None,
    if_match: str | None,
    no_activate: bool,
    allow_private: bool,
) -> None:
    """Publish a package to a running service.

    PACKAGE is a folder, a zip, the http(s) URL of a zip, or a git repository:
    git+https://HOST/REPOSITORY[@REF][#subdir=FOLDER].
    """
    data = zip_from(package, allow_private=allow_private)
    with (
        closing(Remote(url, key)) as remote,
        click.progressbar(length=len(data), label="uploading", hidden=len(data) <= PART_BYTES_MAX) as bar,
    ):
        try:
            made = remote.publish(data, owner, if_match, bar.update, activate=not no_activate)
        except Refused as refusal:
            raise click.ClickException(str(refusal)) from refusal
    word = "already active:" if not made.changed else "stored" if no_activate else "published"
    click.echo(f"{word} {made.id} version {made.version} {made.digest}")
