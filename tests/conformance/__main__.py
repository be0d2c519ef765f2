"""`make conformance`: the public MCP suites against a running service; ends well only if nothing was left out."""

import sys
import tempfile
from pathlib import Path

from tests.conformance.renaming import renaming
from tests.conformance.service import pack_served, publish_tasks
from tests.conformance.suites import INSPECTIONS, SUITES, Found, inspect, run_suite

_BAD = ("FAILURE", "WARNING", "SKIPPED")


def main(pattern: str = "") -> int:
    good, has_tasks = True, False
    with (
        pack_served() as service,
        renaming(f"http://localhost:{service.port}") as renamed,
        tempfile.TemporaryDirectory() as results,
    ):
        url = f"http://localhost:{service.port}/mcp"
        for number, suite in enumerate(SUITES):
            if suite.renamed and not has_tasks:
                publish_tasks(service)
                has_tasks = True
            if pattern in suite.name:
                found = run_suite(suite, f"{renamed}/mcp" if suite.renamed else url, Path(results) / str(number))
                good &= _told(suite.name, found, suite.least)
        for name, options in INSPECTIONS.items():
            if pattern in name:
                good &= _told(name, inspect(options, url), 1)
    return 0 if good else 1


def _told(name: str, found: Found, least: int) -> bool:
    bad = {status: found.checks[status] for status in _BAD if found.checks[status]}
    good = found.status == 0 and not bad and found.checks["SUCCESS"] >= least
    line = f"{name:<32} {found.checks['SUCCESS']:>4} of {least:>4}  {bad or ''}"
    sys.stdout.write(f"{'ok  ' if good else 'FAIL'} {line.rstrip()}\n")
    for problem in found.problems:
        sys.stdout.write(f"       {problem[:600]}\n")
    if not good and not found.problems:
        sys.stdout.write(f"{found.said[-3000:]}\n")
    sys.stdout.flush()
    return good


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
