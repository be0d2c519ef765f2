"""`skillwire init-storage` and `skillwire migrate-storage`: what is done to a storage from outside a replica."""

from contextlib import AsyncExitStack
from typing import Literal

import click

from gateway.backends import open_storage, prepare_storage
from gateway.commands.running import read_settings, run
from services.settings import Settings
from services.storage.migration import Moved, Side, migrate

Backend = Literal["local", "s3"]
_BACKEND = click.Choice(["local", "s3"])


@click.command("init-storage")
def init_storage() -> None:
    """Make the tables and the bucket of the backend `s3` where they are missing."""
    made = run(prepare_storage(_settings("s3")))
    for name in made:
        click.echo(f"made {name}")
    click.echo("the storage is ready")


@click.command("migrate-storage")
@click.option("--from", "source", type=_BACKEND, required=True, help="The backend that has the catalog.")
@click.option("--to", "target", type=_BACKEND, required=True, help="The backend that is to have it.")
def migrate_storage(source: Backend, target: Backend) -> None:
    """Copy the catalog from one backend to the other, with its versions; safe to interrupt and repeat."""
    if source == target:
        raise click.UsageError("--from and --to are the same")
    moved = run(_migrate(_settings(source), _settings(target)))
    click.echo(
        f"{moved.skills} skills with {moved.versions} versions are equal on both; {moved.invocations} invocations"
    )


async def _migrate(source: Settings, target: Settings) -> Moved:
    async with AsyncExitStack() as stack:
        old, new = await open_storage(source, stack), await open_storage(target, stack)
        return await migrate(Side(old.store, old.blobs), Side(new.store, new.blobs), _say)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _settings(backend: Backend) -> Settings:
    return read_settings({"storage_backend": backend})
