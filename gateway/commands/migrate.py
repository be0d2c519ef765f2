"""`skillwire migrate`: a database of an older version, made ready for this one."""

import click

from gateway.backends import migrate_database
from gateway.commands.running import read_settings, run
from services.storage.schema import SCHEMA_VERSION


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done and change nothing.")
def migrate(dry_run: bool) -> None:
    """Bring the database to this version's schema."""
    done = run(migrate_database(read_settings({}), dry_run=dry_run))
    if done.found is None:
        click.echo(f"there are no tables: schema {SCHEMA_VERSION} {'would be' if dry_run else 'was'} made")
    elif not done.steps:
        click.echo(f"schema {done.found} is up to date" if done.found <= SCHEMA_VERSION else _newer(done.found))
    for step in done.steps:
        click.echo(f"{'would migrate' if dry_run else 'migrated'} to schema {step.to}: {step.summary}")


def _newer(found: int) -> str:
    return f"schema {found} is of a newer Skillwire; this one knows {SCHEMA_VERSION}"
