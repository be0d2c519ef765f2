"""What the replicas' metrics must have said of a fault, beside what their clients saw."""

import re
from collections import Counter

import httpx2

# A sign must have grown under its fault, summed over the replicas.
SIGNS = {
    # Without these a run has shown little: nothing was audited, or L2 answered nothing.
    "none": ('skillwire_cache_audits_total{result="ok"}', 'skillwire_cache_reads_total{tier="l2"}'),
    "poison": ('skillwire_cache_refused_total{tier="l2"}', "skillwire_cache_l2_unsealed_total"),
    "forge": ("skillwire_cache_l2_unsealed_total",),
    "links": ('skillwire_hint_failures_total{at="listen"}',),
    "valkey frozen": ("skillwire_cache_l2_errors_total",),
    "valkey silent": ("skillwire_cache_l2_errors_total",),
    "valkey killed": ("skillwire_cache_l2_errors_total", 'skillwire_hint_failures_total{at="listen"}'),
    "db_frozen": ('skillwire_cache_stale_served_total{reason="log"}', "skillwire_tail_failures_total"),
    "restored": ("skillwire_log_restarts_total",),
}
# Must never grow, whatever is done.
NEVER = ('skillwire_cache_audits_total{result="stale"}', "skillwire_cache_background_failures_total")
_LINE = re.compile(r"(skillwire_\w+_total(?:\{[^}]*\})?) ([0-9.e+]+)")


async def counted(client: httpx2.AsyncClient, urls: list[str]) -> dict[str, Counter[str]]:
    """The counters of every replica."""
    answers = {url: await client.get(f"{url}/metrics", timeout=10) for url in urls}
    return {
        url: Counter({name: int(float(value)) for name, value in _LINE.findall(answer.text)})
        for url, answer in answers.items()
    }


def grown(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> Counter[str]:
    """By how much over all replicas; what was killed in between began at 0 again."""
    total = Counter[str]()
    for url, now in after.items():
        was = before.get(url, Counter())
        for name, value in now.items():
            total[name] += value - was[name] if value >= was[name] else value
    return total


def missing_signs(fault: str, grew: Counter[str], *, postgres: bool) -> list[str]:
    """Empty as well for a server without metrics."""
    if not grew:
        return []
    # Whoever holds the lock of SQLite keeps no reader waiting, so no answer needs a label.
    due = () if fault == "db_frozen" and not postgres else SIGNS.get(fault, ())
    missing = [f"{fault}: {sign} did not grow" for sign in due if not grew[sign]]
    return missing + [f"{fault}: {sign} grew by {grew[sign]}" for sign in NEVER if grew[sign]]
