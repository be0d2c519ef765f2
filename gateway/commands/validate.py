"""`skillwire validate`: what the catalog would say of packages, before they are published."""

import sys
from pathlib import Path

import click

from services.skills.package import Package, find_roots, in_words, read_folder


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
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


def _print_judgement(root: Path, package: Package) -> None:
    click.echo(f"{package.grade:<11} {root}  {package.digest}")
    for found in package.diagnostics:
        click.echo(f"  {found.severity}: {in_words(found)}")
