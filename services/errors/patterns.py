"""Error messages without what differs from one occurrence to the next.

One lexer goes over the message once: numbers, ids, paths, addresses and stamps become a name in
angle brackets, quoted text becomes `<str>`, and a run of one name becomes a single one. Status
and error numbers stay, because 404 and 500 are different errors.

Every expression is RE2's, which has no backtracking: a message costs time in proportion to its
length, whatever somebody wrote into it. RE2 has no look-around either; `\\B` before a quote or a
slash says "not after a letter", so that neither `can't` nor `and/or` begins anything.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import re2

from services.errors.nouns import ErrorClass

# What counts of a message is its first and its last kilobyte: the type and the words, and the
# last line of a program that failed.
_HALF_CHARS = 1024
PATTERN_CHARS_MAX = 1000
_FINGERPRINT_CHARS = 32

_TLD = "com|net|org|io|dev|ai|cloud|internal|local|lan|example|test"
_FILE = (
    "csv|json|jsonl|ya?ml|toml|ini|conf|cfg|env|txt|md|log|lock|py|js|ts|sh|sql|db|sqlite|xml|html|pdf|png|jpe?g|"
    "zip|tar|gz|parquet|xlsx|so"
)
_UNIT = (
    "ns|us|ms|s|secs?|seconds?|milliseconds?|minutes?|mins?|h|hours?|days?|[KMGTkmgt]i?[Bb]|bytes?|B|chars?|characters?"
)
_HEX4 = "[0-9a-fA-F]{1,4}"

# In order: of two that match at one place the first one counts. `keep` stays as it is.
_PARTS = (
    (
        "keep",
        r"(?i:\b(?:http(?:/[\d.]+)?|status(?: code)?|code|errno|error|signal|exit(?:ed)?(?: with)?(?: status| code)?)"
        r"[ :=#]{1,2}-?\d{1,5}\b)"
        r"|\b(?i:utf|sha|md|u?int|float|base|ipv|oauth|http|python|log|ec|[hikpsx])-?\d{1,3}[a-z]?\b"
        r"|\b(?:ORA-|TS|E|C|CS|PG)\d{4,5}\b",
    ),
    ("uuid", r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
    ("url", r"""\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]*[^\s"'<>.,:;!?)\]}]"""),
    ("email", r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"),
    (
        "time",
        r"\b\d{4}[-/]\d\d[-/]\d\d(?:[T _]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?\b"
        r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{4}\b|\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?\b"
        r"|\b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:\d{1,2} )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
        r" +\d{1,4}(?: \d\d:\d\d:\d\d)?(?: \d{4})?\b",
    ),
    ("mac", r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b"),
    (
        "host",
        r"\b(?:\d{1,3}\.){3}\d{1,3}(?:[:/]\d{1,5})?\b"
        rf"|\[[0-9a-fA-F]*:[0-9a-fA-F.:]*\](?::\d{{1,5}})?|\b{_HEX4}(?::{{1,2}}{_HEX4}){{3,7}}\b"
        rf"|\b(?:[\w-]+\.)+(?:{_TLD})(?::\d{{1,5}})?\b|\b[a-zA-Z][\w.-]*:\d{{2,5}}\b",
    ),
    (
        "path",
        r"""(?:\B(?:~|\.{1,2})?)/[^\s"'<>:,;()\[\]{}=|]*|\b[A-Za-z]:\\[^\s"'<>:,;|]*"""
        rf"|\b[\w.-]+(?:/[\w.-]+){{2,}}|\b(?:[\w-]+[/.])*[\w-]+\.(?:{_FILE})\b",
    ),
    ("num", rf"\b\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?(?: ?(?:{_UNIT})\b|%|\b)"),
    ("hex", r"\b0[xX][0-9a-fA-F]+\b|\b[0-9a-fA-F]{8,}\b"),
    ("id", r"\b[A-Za-z_]+\d\w*\b|\b\d+[A-Za-z_]\w{2,}\b"),
    ("pair", r"""\b\w+=[^\s,;&)\]}"'<]+"""),
)
_NAMES = tuple(name for name, _ in _PARTS)
_LEXER = re2.compile("|".join(f"({pattern})" for _, pattern in _PARTS))
# After the lexer, which makes long values short: a quoted sentence is no parameter.
_QUOTED = re2.compile(
    r"""(?:\bb|\B)'[^'\n]{0,80}'\B|(?:\bb|\B)"[^"\n]{0,80}"\B|\B`[^`\n]{0,80}`\B|[“„「『][^”“」』]{0,80}[”“」』]"""
)
_RUN = re2.compile("|".join(rf"<{name}>(?:[\s,;|x/&-]{{0,3}}<{name}>)+" for name in (*_NAMES, "str")))
_NAME_OR_SIGN = re.compile(r"<\w+>")
_SECRET = re2.compile(
    r"(?i)((?:secret|token|passw\w*|api[_-]?key|authorization|credential\w*|private[_-]?key)[\"']?\s?[=:]\s?[\"']?)"
    r"((?:bearer |basic )?[^\s,;&\"']+)|\b(bearer )([\w.~+/-]{8,}=*)|(://[^\s:/@]*:)([^\s/@]+)(?:@)"
)
# What is made anew for every call and says nothing about it.
_VOLATILE = re2.compile(f"{dict(_PARTS)['uuid']}|{dict(_PARTS)['time']}")
_MASKED_BYTES_MAX = 64 * 1024

_CLASSES: tuple[tuple[ErrorClass, Any], ...] = (
    (
        "PERMISSION",
        r"permission|access (?:is )?denied|denied by|forbidden|unauthori[sz]ed|not authori[sz]ed|not allowed"
        r"|authentication|invalid api.?key|eacces|eperm|errno 1\b|errno 13\b|\b40[13]\b|read-only file system",
    ),
    (
        "DATABASE",
        r"\bsql|database|sqlite|postgres|psycopg|mysql|mariadb|mongo|redis|deadlock|duplicate key"
        r"|no such (?:table|column)|foreign key|unique constraint|integrityerror|operationalerror|\bora-\d",
    ),
    (
        "NETWORK",
        r"connection|\becon|enotfound|ehostunreach|getaddrinfo|gaierror|name or service not known|name resolution"
        r"|network|unreachable|\bdns\b|\bssl|\btls\b|certificate|socket|broken pipe|timed out|timeouterror|\b50[234]\b",
    ),
    (
        "VALIDATION",
        r"(?:value|type|key|index|attribute|decode|validation|schema|syntax|parse)error|invalid|not valid|expected"
        r"|missing|required|must (?:be|have|not)|schema|valid|cannot parse|could not parse|malformed|out of range"
        r"|do not fit",
    ),
)
_CLASS_OF = tuple((name, re2.compile(f"(?i){pattern}")) for name, pattern in _CLASSES)
_VALIDATION_CODES = frozenset({"invalid", "bad_arguments", "bad_schema", "bad_command", "bad_output", "too_large"})
_PERMISSION_CODES = frozenset({"forbidden", "scripts_not_allowed", "network_not_allowed"})


def without_secrets(message: str) -> str:
    """The message with `***` for what follows a secret's name; longer ones lose their middle."""
    if len(message) > 2 * _HALF_CHARS:
        message = f"{message[:_HALF_CHARS]} ... {message[-_HALF_CHARS:]}"
    return _each(_SECRET, _redact, message)


def pattern_of(message: str) -> str:
    """What all occurrences of one error have in common, at most `PATTERN_CHARS_MAX` characters."""
    text = _each(_LEXER, _name, without_secrets(message))
    text = _each(_QUOTED, lambda _: b"<str>", text)
    text = _each(_RUN, lambda run: run.group()[: run.group().index(b">") + 1], " ".join(text.split()))
    return text[:PATTERN_CHARS_MAX]


def class_of(code: str, pattern: str) -> ErrorClass:
    """From our own code where that says it, else from the words of the pattern."""
    if code in _VALIDATION_CODES:
        return "VALIDATION"
    if code in _PERMISSION_CODES:
        return "PERMISSION"
    return next((name for name, words in _CLASS_OF if words.search(pattern)), "UNKNOWN")


def fingerprint(error_class: ErrorClass, tool: str, pattern: str) -> str:
    """The incident's id: the same on every replica."""
    return hashlib.sha256(f"{error_class}|{tool}|{pattern}".encode()).hexdigest()[:_FINGERPRINT_CHARS]


def words_of(pattern: str) -> str:
    """The pattern without its names, which nearly every pattern shares."""
    return _NAME_OR_SIGN.sub(" ", pattern)


def masked(encoded: bytes) -> bytes:
    """JSON without its uuids and stamps; more than 64 KiB is left as it is."""
    return _VOLATILE.sub(lambda _: b"<volatile>", encoded) if len(encoded) <= _MASKED_BYTES_MAX else encoded


def _each(expression: Any, replace: Callable[[Any], bytes], text: str) -> str:
    # As bytes: over str this wrapper counts every offset again.
    replaced: bytes = expression.sub(replace, text.encode(errors="replace"))
    return replaced.decode(errors="replace")


def _name(found: Any) -> bytes:
    name = _NAMES[found.lastindex - 1]
    if name == "keep":
        return bytes(found.group())
    if name == "pair":
        return bytes(found.group().partition(b"=")[0]) + b"=<str>"
    return b"<%s>" % name.encode()


def _redact(found: Any) -> bytes:
    kept = found.group(1) or found.group(3) or found.group(5)
    return bytes(kept) + (b"***@" if found.group(5) else b"***")
