"""`skillwire sweep`: what the service does every hour, by hand and with a report."""

import click

from gateway.backends import sweep_blobs
from gateway.commands.running import read_settings, run


@click.command()
@click.option("--older-than-h", type=click.FloatRange(min=1), help="Age in hours. [default: blob_keep_h]")
def sweep(older_than_h: float | None) -> None:
    """Remove stored files that no version names any more."""
    settings = read_settings({})
    hours = settings.blob_keep_h if older_than_h is None else older_than_h
    swept = run(sweep_blobs(settings, hours * 3600))
    click.echo(f"removed {swept.blobs} blobs, {swept.bytes} bytes, that nothing has used for {hours:g} h")
