"""Messages become patterns: what differs between two occurrences goes, what tells errors apart stays."""

from itertools import combinations

import pytest

from services.errors.patterns import PATTERN_CHARS_MAX, class_of, fingerprint, masked, pattern_of, without_secrets
from tests.support.cost import cpu_s, floor_s

# Each line is one error as it comes with different parameters; no two lines are the same error.
GROUPS: list[list[str]] = [
    ["KeyError: 'user_id'", "KeyError: 'order_id'"],
    ["no row with id 4711", "no row with id 12"],
    ["[Errno 2] No such file or directory: '/data/a.csv'", "[Errno 2] No such file or directory: '/tmp/x y/ü.json'"],
    ["[Errno 13] Permission denied: '/etc/shadow'", "[Errno 13] Permission denied: './out/report.pdf'"],
    ["cannot open /var/lib/app/data.db for reading", "cannot open C:\\Users\\ada\\data.db for reading"],
    [
        "HTTP Error 404: Not Found for url https://api.example.com/v1/users/7",
        "HTTP Error 404: Not Found for url http://x/",
    ],
    ["HTTP Error 500: Not Found for url https://api.example.com/v1/users/7"],
    [
        "connection to 10.0.0.7:5432 refused",
        "connection to 192.168.1.20:6379 refused",
        "connection to [::1] refused",
    ],
    ["connection to db-3.eu.internal:5432 reset", "connection to cache.example.com reset"],
    [
        "request 3f2b8a54-0c1d-4e6f-9a7b-5c4d3e2f1a0b timed out",
        "request 00000000-0000-4000-8000-00000000000f timed out",
    ],
    ["timed out after 30 s", "timed out after 1.5 s", "timed out after 250ms"],
    ["mail to ada@example.com bounced", "mail to grace.hopper+x@navy.mil bounced"],
    ["certificate expired at 2026-11-21T07:35:52.123Z", "certificate expired at 2025-01-02 03:04:05+01:00"],
    ["device 00:1b:44:11:3a:b7 is gone", "device a0-b1-c2-d3-e4-f5 is gone"],
    ["segfault at 0x7ffdeadbeef", "segfault at 0x10"],
    ["commit 9fceb02d0ae598e95dc970b74767f19372d61af8 is missing", "commit deadbeef00 is missing"],
    ["job req_8f3a9c failed on node7", "job req_12 failed on worker19"],
    ["rows 3, 4, 5 do not fit", "rows 3 do not fit", "rows 9, 10 do not fit"],
    ["can't parse 'abc'", "can't parse 'it'"],
    ["unexpected token } at line 12 column 3", "unexpected token } at line 1 column 77"],
    ["unexpected token ] at line 12 column 3"],
    ["exit status 3: no space left on device"],
    ["exit status 4: no space left on device"],
    ["user=ada role=admin may not write", "user=grace role=guest may not write"],
    ["ORA-12154: could not resolve the connect identifier"],
    ["ORA-12541: could not resolve the connect identifier"],
    ["disk is 93% full (412 GiB of 442 GiB)", "disk is 99.5% full (1 TiB of 1 TiB)"],
    ["'utf-8' codec can't decode byte 0xff in position 0", "'ascii' codec can't decode byte 0xe4 in position 1021"],
    ["the file 「报告」 does not exist", "the file 「数据 2026」 does not exist"],
]


def test_one_error_is_one_pattern_whatever_its_parameters_and_two_errors_are_two() -> None:
    patterns = [{pattern_of(message) for message in group} for group in GROUPS]
    assert sum(len(group) for group in GROUPS) >= 40
    assert [group for group, found in zip(GROUPS, patterns, strict=True) if len(found) > 1] == []
    assert [pair for pair in combinations(patterns, 2) if pair[0] & pair[1]] == []


@pytest.mark.parametrize(
    ("message", "code", "expected"),
    [
        ("OperationalError: no such table: users", "tool_failed", "DATABASE"),
        ("duplicate key value violates unique constraint", "tool_failed", "DATABASE"),
        ("ConnectionRefusedError: [Errno 111] Connection refused", "tool_failed", "NETWORK"),
        ("gaierror: Name or service not known", "tool_failed", "NETWORK"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "tool_failed", "PERMISSION"),
        ("HTTP Error 403: go away", "tool_failed", "PERMISSION"),
        ("anything", "scripts_not_allowed", "PERMISSION"),
        ("ValueError: invalid literal for int()", "tool_failed", "VALIDATION"),
        ("connection", "bad_arguments", "VALIDATION"),
        ("the tool 'x' was stopped after 30 s", "timeout", "UNKNOWN"),
        ("no such luck", "tool_failed", "UNKNOWN"),
    ],
)
def test_the_class_comes_from_our_code_or_from_the_words(message: str, code: str, expected: str) -> None:
    assert class_of(code, pattern_of(message)) == expected


def test_the_fingerprint_differs_by_class_tool_and_pattern() -> None:
    prints = {
        fingerprint("UNKNOWN", "a", "p"),
        fingerprint("NETWORK", "a", "p"),
        fingerprint("UNKNOWN", "b", "p"),
        fingerprint("UNKNOWN", "a", "q"),
    }
    assert len(prints) == 4
    assert fingerprint("UNKNOWN", "a", "p") in prints


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1 ",
        "'",
        '"x" ',
        "/a",
        "../",
        "a@",
        "a.",
        "0:",
        "::",
        "\ud800",
        "((((",
        "<num> ",
        "a=b ",
        "x_1",
        "http://",
        "「",
    ],
)
def test_a_hostile_megabyte_becomes_a_bounded_pattern_in_bounded_time(unit: str) -> None:
    message = unit * (1024 * 1024 // len(unit))
    pattern = pattern_of(message)
    # 2 to 6 ms were measured (2026-11-21), less than hashing a package of the largest size.
    assert cpu_s(lambda: pattern_of(message), tries=3) < 20 * floor_s()
    assert len(pattern) <= PATTERN_CHARS_MAX


def test_secrets_are_neither_in_the_sample_nor_in_the_pattern() -> None:
    message = (
        "login failed: password=hunter2 api_key: 'k-123' Authorization: Bearer abc.def.ghi at postgres://u:pw9@h/db"
    )
    for text in (without_secrets(message), pattern_of(message)):
        assert not any(secret in text for secret in ("hunter2", "k-123", "abc.def", "pw9")), text


def test_arguments_are_equal_but_for_uuids_and_stamps() -> None:
    first = b'{"id":"3f2b8a54-0c1d-4e6f-9a7b-5c4d3e2f1a0b","at":"2026-11-21T07:35:52Z","n":1}'
    second = b'{"id":"00000000-0000-4000-8000-00000000000f","at":"2025-01-02T03:04:05Z","n":1}'
    assert masked(first) == masked(second) != masked(second.replace(b'"n":1', b'"n":2'))
