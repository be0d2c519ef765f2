"""A profile of CSV text, column by column."""

import csv
import io
import math
import re
import statistics
from collections import Counter
from datetime import date, datetime, timedelta

ROWS_MAX = 100_000
COLUMNS_MAX = 200
DISTINCT_MAX = 10_000
OUTLIERS_SHOWN = 5
TEXT_SHOWN = 80
MISSING = {"", "na", "n/a", "null", "none", "nan", "-"}
DELIMITERS = (",", ";", "\t", "|")

_INTEGER = re.compile(r"[+-]?\d{1,18}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


def summarize(arguments):
    text = arguments["csv"].removeprefix("\ufeff")
    delimiter = arguments.get("delimiter") or _detect(text)
    names, rows, warnings = _read(text, delimiter, arguments.get("header", True))
    shown = arguments.get("top", 5)
    columns = [_column(name, [row[at] for row in rows], shown) for at, name in enumerate(names)]
    return {
        "rows": len(rows),
        "columns": columns,
        "duplicate_rows": len(rows) - len({tuple(row) for row in rows}),
        "delimiter": delimiter,
        "warnings": warnings,
    }


def _detect(text):
    """The delimiter that splits the first lines into the most columns most evenly."""
    sample = text[:20_000].splitlines()[:50]
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        try:
            widths = Counter(len(row) for row in csv.reader(sample, delimiter=delimiter) if row)
        except csv.Error:
            continue
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        score = (width > 1) * count / sum(widths.values()) + width / 1000
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _read(text, delimiter, has_header):
    csv.field_size_limit(len(text) + 1)
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ValueError(f"this is not CSV: {error}") from None
    if not records:
        raise ValueError("there are no rows")
    warnings = []
    names = [name.strip() for name in records.pop(0)] if has_header else []
    width = len(names) if has_header else Counter(map(len, records)).most_common(1)[0][0]
    if width > COLUMNS_MAX or len(records) > ROWS_MAX:
        raise ValueError(f"at most {COLUMNS_MAX} columns and {ROWS_MAX} rows; this has {width} and {len(records)}")
    for at in range(width):
        if at >= len(names):
            names.append(f"column {at + 1}")
        elif not names[at]:
            names[at] = f"column {at + 1}"
            warnings.append(f"column {at + 1} has no name")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        warnings.append(f"names that stand more than once: {', '.join(repeated[:10])}")
    ragged = [number for number, row in enumerate(records, 1 + has_header) if len(row) != width]
    if ragged:
        warnings.append(
            f"{len(ragged)} records do not have {width} fields (first: record {ragged[0]}); "
            "missing fields count as empty, further ones are ignored"
        )
    rows = [[*(field.strip() for field in row[:width]), *[""] * (width - len(row))] for row in records]
    return names, rows, warnings


def _column(name, fields, shown):
    values = [field for field in fields if field.lower() not in MISSING]
    counts = Counter(values)
    column = {"name": name, "type": "empty", "missing": len(fields) - len(values), "distinct": len(counts)}
    if len(counts) > DISTINCT_MAX:
        column |= {"distinct": DISTINCT_MAX, "distinct_is_lower_bound": True}
    if not values:
        return column
    kinds = Counter()
    for value, count in counts.items():
        kinds[_kind(value)] += count
    column["type"] = _type_of(kinds)
    if column["type"] == "text" and len(kinds) > 1:
        kind, count = kinds.most_common(1)[0]
        if kind != "text" and count >= 0.9 * len(values):
            column["mostly"] = kind
            column["others"] = [value[:TEXT_SHOWN] for value in counts if _kind(value) != kind][:OUTLIERS_SHOWN]
    if shown:
        column["top"] = [{"value": value[:TEXT_SHOWN], "count": n} for value, n in counts.most_common(shown)]
    if column["type"] in ("integer", "number"):
        column |= _numbers([float(value) for value in values], column["type"])
    elif column["type"] in ("date", "datetime"):
        column |= _range_of_times(values)
    elif column["type"] == "text":
        column |= {"length_min": min(map(len, values)), "length_max": max(map(len, values))}
    return column


def _kind(value):
    if _INTEGER.fullmatch(value):
        # a leading zero is a code (postcode, account), not a quantity
        return "text" if len(value.lstrip("+-")) > 1 and value.lstrip("+-").startswith("0") else "integer"
    if _NUMBER.fullmatch(value) and math.isfinite(float(value)):
        return "number"
    if value.lower() in ("true", "false", "yes", "no"):
        return "boolean"
    if value[:4].isdigit() and value[4:5] == "-":
        for kind, parse in (("date", date.fromisoformat), ("datetime", datetime.fromisoformat)):
            try:
                parse(value)
            except ValueError:
                continue
            return kind
    return "text"


def _type_of(kinds):
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if found == {"integer", "number"}:
        return "number"
    return "datetime" if found == {"date", "datetime"} else "text"


def _plain(number, kind):
    """Integers stay integers where the float holds them exactly."""
    return int(number) if kind == "integer" and abs(number) < 2**53 else float(f"{number:.12g}")


def _numbers(numbers, kind):
    numbers.sort()
    q1, median, q3 = (_quantile(numbers, share) for share in (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    beyond = [number for number in numbers if number < q1 - reach or number > q3 + reach]
    extreme = sorted(beyond, key=lambda number: -abs(number - median))[:OUTLIERS_SHOWN]
    facts = {
        "min": _plain(numbers[0], kind),
        "max": _plain(numbers[-1], kind),
        "mean": _plain(math.fsum(numbers) / len(numbers), "number"),
        "q1": _plain(q1, "number"),
        "median": _plain(median, "number"),
        "q3": _plain(q3, "number"),
        "outliers": {"count": len(beyond), "most_extreme": [_plain(number, kind) for number in extreme]},
    }
    if len(numbers) > 1:
        facts["stdev"] = _plain(statistics.stdev(numbers), "number")
    return facts


def _quantile(ordered, share):
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _range_of_times(values):
    """The earliest and latest as written; a zone-less time is compared as if it were UTC."""
    ordered = sorted(values, key=_moment)
    return {"min": ordered[0], "max": ordered[-1]}


def _moment(value):
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=None) - datetime.min - (moment.utcoffset() or timedelta())
