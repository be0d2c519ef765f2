"""Packages nobody means well with, each to be refused: by name, the zip and the code of the refusal."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import NamedTuple

from tests.support.packages import directory_end, directory_entry, skill_md, tool, tools_json, zip_of

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


class Hostile(NamedTuple):
    make: Callable[[], bytes]
    code: str = "invalid"


def with_entry(name: str, content: bytes = b"x", mode: int = 0) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("SKILL.md", skill_md())
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content)
    return buffer.getvalue()


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """The last header of that kind with other bytes in it."""
    at = data.rindex(signature) + offset
    return data[:at] + value + data[at + len(value) :]


def quoted_overlap(count: int, kernel: bytes) -> bytes:
    """Fifield's construction: each entry's data quotes the headers and the data of all that follow."""
    packer = zlib.compressobj(0, zlib.DEFLATED, -15)
    packed, content, chain = packer.compress(kernel) + packer.flush(), kernel, b""
    entries: list[tuple[bytes, int, int, int, int]] = []
    for at in reversed(range(count)):
        name = b"f%03d" % at if at else b"SKILL.md"
        if chain:
            header_of_next = chain[: 30 + len(entries[-1][0])]
            content = header_of_next + content
            packed = struct.pack("<BHH", 0, len(header_of_next), len(header_of_next) ^ 0xFFFF) + chain
        crc = zlib.crc32(content)
        header = struct.pack("<4s5H3L2H", LOCAL, 20, 0, 8, 0, 0, crc, len(packed), len(content), len(name), 0)
        chain = header + name + packed
        entries.append((name, len(content), len(packed), crc, len(chain)))
    directory = b"".join(
        directory_entry(name, size=size, packed=packed_size, crc=crc, method=8, at=len(chain) - length)
        for name, size, packed_size, crc, length in reversed(entries)
    )
    return chain + directory + directory_end(count, len(directory), len(chain))


def _many_entries(count: int) -> bytes:
    directory = directory_entry(b"a") * count
    return directory + directory_end(count, len(directory), 0)


def _renamed(name: bytes) -> bytes:
    """A zip that holds this name, which `zipfile` would not write."""
    placeholder = b"Q" * len(name)
    return with_entry(placeholder.decode()).replace(placeholder, name)


def _twice(*names: str) -> bytes:
    """Written entry by entry, since `zipfile` warns of a name that it has."""
    local, directory = b"", b""
    for name in names:
        content, coded = skill_md(), name.encode()
        crc = zlib.crc32(content)
        directory += directory_entry(coded, size=len(content), packed=len(content), crc=crc, at=len(local))
        local += struct.pack("<4s5H3L2H", LOCAL, 20, 0x800, 0, 0, 0, crc, len(content), len(content), len(coded), 0)
        local += coded + content
    return local + directory + directory_end(len(names), len(directory), len(local))


def _manifest(source: str) -> bytes:
    return zip_of({"SKILL.md": source.encode(errors="surrogatepass")})


def _field(source: str) -> bytes:
    return _manifest(f"---\nname: demo\ndescription: Does.\n{source}\n---\n")


def _tools(data: bytes) -> bytes:
    return zip_of({"SKILL.md": skill_md(), "tools.json": data, "scripts/run.py": b"def main(a): return a\n"})


def _schema(**keywords: object) -> bytes:
    return _tools(tools_json(tool(inputSchema={"type": "object", **keywords})))


def _nested_schema(levels: int) -> bytes:
    schema: dict[str, object] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return _tools(tools_json(tool(inputSchema=schema)))


ARCHIVES: Mapping[str, Hostile] = {
    "no zip": Hostile(lambda: b"not a zip at all"),
    "zip slip": Hostile(lambda: with_entry("../../up.md")),
    "absolute": Hostile(lambda: with_entry("/etc/passwd")),
    "drive": Hostile(lambda: with_entry("C:\\x.md")),
    "backslash": Hostile(lambda: with_entry("a\\..\\x.md")),
    "device of Windows": Hostile(lambda: with_entry("aux.md")),
    "name that Windows changes": Hostile(lambda: with_entry("a./b.md")),
    "wildcard": Hostile(lambda: with_entry("*.md")),
    "right to left": Hostile(lambda: with_entry("\u202egpj.exe")),
    "long name": Hostile(lambda: with_entry("x" * 60_000)),
    "deep path": Hostile(lambda: with_entry("/".join("d" * 2000))),
    "link": Hostile(lambda: with_entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777)),
    "device": Hostile(lambda: with_entry("disk", b"", stat.S_IFBLK | 0o666)),
    "NUL in a name": Hostile(lambda: _renamed(b"a.md\0.txt")),
    "surrogate in a name": Hostile(lambda: with_entry("\u20ac.md").replace("\u20ac".encode(), b"\xed\xa0\x80")),
    "case twins": Hostile(lambda: _twice("SKILL.md", "a.md", "A.md")),
    "NFC twins": Hostile(lambda: _twice("SKILL.md", "\u00e9.md", "e\u0301.md")),
    "two SKILL.md": Hostile(lambda: _twice("SKILL.md", "SKILL.md")),
    "file and folder": Hostile(lambda: _twice("SKILL.md", "a", "a/b")),
    "overlap": Hostile(lambda: quoted_overlap(15, os.urandom(100_000))),
    "bomb by ratio": Hostile(lambda: zip_of({"SKILL.md": skill_md(), "zeros": bytes(15_000_000)}), "too_large"),
    "bomb by size": Hostile(lambda: zip_of({f"f{at}": bytes(4_000_000) for at in range(40)}), "too_large"),
    "lying size": Hostile(
        lambda: patched(zip_of({"SKILL.md": skill_md(), "z": bytes(9_000_000)}), CENTRAL, 24, struct.pack("<L", 1000))
    ),
    "bomb by count": Hostile(lambda: zip_of({f"f{at}": b"" for at in range(4000)}), "too_large"),
    "encrypted": Hostile(
        lambda: patched(patched(with_entry("a"), CENTRAL, 8, b"\x01"), LOCAL, 6, b"\x01"),
    ),
    "bzip2": Hostile(lambda: zip_of({"SKILL.md": skill_md(), "z": bytes(1000)}, zipfile.ZIP_BZIP2)),
    "no SKILL.md": Hostile(lambda: zip_of({"README.md": b"x"})),
    "no frontmatter": Hostile(lambda: _manifest("# Just text\n")),
    "not UTF-8": Hostile(lambda: zip_of({"SKILL.md": b"---\nname: \xff\n---\n"})),
    "surrogate in the text": Hostile(lambda: _manifest("---\nname: \ud800\n---\n")),
    "NUL in the frontmatter": Hostile(lambda: _field("a: b\0c")),
    "alias": Hostile(lambda: _field("a: &a [x]\nb: *a")),
    "billion laughs": Hostile(
        lambda: _field("\n".join(["a0: &a0 [x]", *(f"a{at}: &a{at} [{f'*a{at - 1},' * 9}]" for at in range(1, 10))]))
    ),
    "deep YAML": Hostile(lambda: _field("a: " + "[" * 5000)),
    "deep YAML by indent": Hostile(lambda: _field("\n".join(" " * at + "a:" for at in range(100)))),
    "YAML tag": Hostile(lambda: _field("a: !!python/object/apply:os.system [id]")),
    "date that is none": Hostile(lambda: _field("since: 2026-01-00")),
    "date that is none, nested": Hostile(lambda: _field("metadata:\n  since: [2026-02-30T25:00:00Z]")),
    "date that is none, as a key": Hostile(lambda: _field("metadata:\n  2026-01-00: x")),
    "YAML key twice": Hostile(lambda: _field("a: 1\na: 2")),
    "huge frontmatter": Hostile(lambda: _field("a: " + os.urandom(300_000).hex())),
    "many keys": Hostile(lambda: _field("\n".join(f"k{at}: [[]]" for at in range(50_000)))),
    "huge SKILL.md": Hostile(lambda: _manifest("---\nname: demo\n---\n" + os.urandom(1_000_000).hex())),
    "deep tools.json": Hostile(
        lambda: _tools(b'{"tools":[{"name":"a","description":"","command":["x"],"inputSchema":' + b'{"a":' * 9000)
    ),
    "deep schema": Hostile(lambda: _nested_schema(200)),
    "huge number in a schema": Hostile(lambda: _schema(maximum=10**300)),
    "references without end": Hostile(lambda: _schema(**{"$ref": "#"})),
    "references in a circle": Hostile(
        lambda: _schema(**{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}})
    ),
    "reference to another host": Hostile(lambda: _schema(properties={"a": {"$ref": "http://169.254.169.254/"}})),
    "pattern without end": Hostile(lambda: _schema(properties={"a": {"pattern": "(a+)+$"}})),
    "pattern of many repetitions": Hostile(lambda: _schema(properties={"a": {"pattern": "a*" * 200 + "$"}})),
}

LARGE: Mapping[str, Hostile] = {
    # What the bytes alone cost.
    "32 MB of nothing": Hostile(lambda: bytes(32_000_000)),
    # As much of a million entries as an upload may hold, and the million itself.
    "700,000 entries": Hostile(lambda: _many_entries(700_000), "too_large"),
    "1,000,000 entries": Hostile(lambda: _many_entries(1_000_000), "too_large"),
    "700,000 entries after a real one": Hostile(
        lambda: (head := with_entry("a"))[: head.rindex(CENTRAL)] + _many_entries(690_000), "too_large"
    ),
}
