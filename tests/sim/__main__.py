"""`python -m tests.sim`: runs seeds, or replays one and prints what happened around its first violation."""

import time
from collections import Counter

import click

from tests.sim.check import History, Violation
from tests.sim.mutants import MUTANTS
from tests.sim.replica import horizon_replicas
from tests.sim.scenario import simulate
from tests.sim.usual import usual_replica
from tests.sim.world import Opener

_AROUND_S = 0.6


@click.command()
@click.option("--seed", type=int, help="Replay this one.")
@click.option("--seeds", default=600, show_default=True, help="How many to run, from 0.")
@click.option("--usual", is_flag=True, help="The delete-and-publish algorithm instead.")
@click.option("--mutant", type=click.Choice([each.name for each in MUTANTS]), help="A planted mistake instead.")
def main(seed: int | None, seeds: int, usual: bool, mutant: str | None) -> None:
    opener: Opener = horizon_replicas()
    if usual:
        opener = usual_replica
    elif mutant is not None:
        opener = horizon_replicas(next(each for each in MUTANTS if each.name == mutant).parts())
    if seed is None:
        _run(seeds, opener)
    else:
        _replay(seed, opener)


def _run(seeds: int, opener: Opener) -> None:
    broken: dict[int, Counter[str]] = {}
    reads, worst_s, started_s = Counter[str](), 0.0, time.perf_counter()
    for seed in range(seeds):
        history = simulate(seed, opener)
        worst_s = max(worst_s, history.worst_s())
        reads.update("failed" if read.error else "stale label" if read.stale else read.tier for read in history.reads)
        if violations := history.violations():
            broken[seed] = Counter(violation.rule for violation in violations)
    spent_s = time.perf_counter() - started_s
    told = ", ".join(f"{name} {count}" for name, count in sorted(reads.items()))
    click.echo(f"{seeds} seeds in {spent_s:.0f} s; {reads.total()} reads: {told}")
    click.echo(f"latest answer without a label: {worst_s * 1000:.0f} ms after a commit that it missed")
    by_rule = Counter(rule for rules in broken.values() for rule in rules)
    told = ", ".join(f"{rule} {count}" for rule, count in sorted(by_rule.items()))
    click.echo(f"seeds with violations: {len(broken)}{f' ({told})' if told else ''}")
    for seed, rules in list(broken.items())[:10]:
        click.echo(f"  --seed {seed}: {', '.join(f'{rule} {count}' for rule, count in rules.items())}")


def _replay(seed: int, opener: Opener) -> None:
    history = simulate(seed, opener)
    violations = history.violations()
    click.echo(f"seed {seed}, history {history.digest[:16]}, {len(history.reads)} reads, {len(violations)} violations")
    if violations:
        first = violations[0]
        click.echo(f"{first.rule}: {first.key} on {first.read.host}, {first.late_s * 1000:.0f} ms late; around it:")
        for at_s, line in sorted(_lines(history, first)):
            click.echo(f"  {at_s - first.read.invoked_s:+9.4f}  {line}")


def _lines(history: History, violation: Violation) -> list[tuple[float, str]]:
    """Of the violation's key, from a while before the read until its return."""
    until_s = violation.read.returned_s
    from_s = violation.read.invoked_s - max(_AROUND_S, violation.late_s + 0.1)
    lines = [(at_s, f"fault {name}") for at_s, name in history.faults]
    for write in history.writes.get(violation.key, []):
        lines.append((write.committed_s, f"version {write.version} committed as seq {write.seq}"))
        if write.acked_s is not None:
            lines.append((write.acked_s, f"version {write.version} acknowledged"))
    for read in history.reads:
        if read.host == violation.read.host and violation.key in (*read.versions, ""):
            level = f"session={read.level.seq}" if read.level.kind == "session" else read.level.kind
            got = f"version {read.versions.get(violation.key)} from {read.tier}{', labelled stale' * read.stale}"
            mark = "   <-- " + violation.rule if read is violation.read else ""
            lines.append((read.invoked_s, f"{read.host} reads {level}: {read.error or got}{mark}"))
    return [line for line in lines if from_s <= line[0] <= until_s]


if __name__ == "__main__":
    main()
