"""`skillwire import`: every package of a folder to a running service, with a report.

It may be run again at any time: a digest that is active already is left as it is, so an import
that was cut goes on where it stopped.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import click

from gateway.commands.origins import folder_from
from gateway.commands.publish import to_a_service
from gateway.commands.remote import Refused, Remote, Unreachable, name_of, zip_of
from services.skills.package import find_roots, printable, read_folder, why_quarantined


class _Outcome(NamedTuple):
    """`kind` is published, unchanged, refused or untried."""

    kind: str
    path: str
    facts: dict[str, Any]


@click.command(name="import")
@click.argument("folder")
@to_a_service
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Uploads at once.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON on standard output.")
def import_(folder: str, url: str, owner: str, key: str | None, jobs: int, as_json: bool) -> None:
    """Publish every package in or under FOLDER to a running service.

    FOLDER is on this machine, or a git repository: git+https://HOST/REPOSITORY[@REF][#subdir=FOLDER].
    Exits with 1 when one was refused, with 3 when the service stopped answering.
    """
    with folder_from(folder) as source, closing(Remote(url, key)) as remote, ThreadPoolExecutor(jobs) as threads:
        roots = find_roots(source)
        if not roots:
            raise click.ClickException(f"there is no SKILL.md in or under {folder}")
        importer = _Importer(
            remote, source, owner, _first_by_name(zip(roots, threads.map(_name_given, roots), strict=True))
        )
        working = [threads.submit(importer.take, root) for root in roots]
        with click.progressbar(
            as_completed(working), length=len(working), label="importing", file=sys.stderr, hidden=as_json
        ) as done:
            outcomes = sorted((future.result() for future in done), key=lambda outcome: outcome.path)
    _report(outcomes, as_json)
    kinds = {outcome.kind for outcome in outcomes}
    sys.exit(3 if "untried" in kinds else 1 if "refused" in kinds else 0)


def _name_given(root: Path) -> str | None:
    """None for what will be refused anyway."""
    try:
        package = read_folder(root)
    except OSError:
        return None
    return package.name if package.grade != "quarantined" else None


def _first_by_name(named: Iterable[tuple[Path, str | None]]) -> dict[str, Path]:
    firsts: dict[str, Path] = {}
    for root, name in named:
        if name is not None:
            firsts.setdefault(name, root)
    return firsts


class _Importer:
    """Of packages with one name the first path is published, as a watched folder has it: which of them is
    served must depend neither on the threads nor on how often the import is run."""

    def __init__(self, remote: Remote, folder: Path, owner: str, firsts: Mapping[str, Path]) -> None:
        self._remote = remote
        self._folder = folder
        self._owner = owner
        self._firsts = firsts
        self._gone: str = ""
        """Why the service is not asked any more, empty while it answers."""

    def take(self, root: Path) -> _Outcome:
        path = printable(root.relative_to(self._folder).as_posix())
        if self._gone:
            return _Outcome("untried", path, {"reason": self._gone})
        try:
            package = read_folder(root)
            if package.grade == "quarantined":
                return _Outcome("refused", path, {"code": "invalid", "reason": why_quarantined(package)})
            first = self._firsts.get(package.name or "", root)
            if first != root:
                other = first.relative_to(self._folder).as_posix()
                reason = (
                    f"{other} gives the same skill {self._owner}/{package.name} and was first -- rename one of them"
                )
                return _Outcome("refused", path, {"code": "invalid", "reason": reason})
            made = self._remote.publish(zip_of(package, name_of(root)), self._owner)
        except OSError as error:
            return _Outcome("refused", path, {"code": "invalid", "reason": str(error)})
        except Refused as refusal:
            return _Outcome("refused", path, {"code": refusal.code, "reason": refusal.detail})
        except Unreachable as error:
            self._gone = error.message
            return _Outcome("untried", path, {"reason": error.message})
        return _Outcome("published" if made.changed else "unchanged", path, {**made._asdict(), "grade": package.grade})


def _report(outcomes: Iterable[_Outcome], as_json: bool) -> None:
    by_kind: dict[str, list[_Outcome]] = {"published": [], "unchanged": [], "refused": [], "untried": []}
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    if as_json:
        report = {kind: [{"path": each.path, **each.facts} for each in some] for kind, some in by_kind.items()}
        click.echo(json.dumps(report, indent=2))
        return
    for outcome in by_kind["refused"]:
        click.echo(f"refused     {outcome.path}: {outcome.facts['reason']} ({outcome.facts['code']})")
    for outcome in by_kind["untried"][:1]:
        click.echo(f"stopped     {outcome.path}: {outcome.facts['reason']}", err=True)
    counts = ", ".join(f"{len(some)} {kind}" for kind, some in by_kind.items() if some or kind != "untried")
    click.echo(counts)
