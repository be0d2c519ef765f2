import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.models import Diagnostic
from services.skills.manifest import DIGEST, build_manifest, digest_of
from services.skills.package import (
    DESCRIPTION_LENGTH_MAX,
    DIAGNOSTICS_MAX,
    FILES_MAX,
    PACKAGE_BYTES_MAX,
    SKILL_MD_BYTES_MAX,
    TOOLS_JSON_BYTES_MAX,
    Package,
    find_roots,
    from_files,
    path_problem,
    read_folder,
    twins,
    why_quarantined,
)
from tests.support.packages import skill_md, tool, tools_json, write_files, write_package

RUN = {"scripts/run.py": b"def main(arguments): return arguments\n"}


def with_tools(data: bytes) -> Package:
    return from_files({"SKILL.md": skill_md(), "tools.json": data, **RUN}, "demo")


def only(package: Package) -> Diagnostic:
    assert len(package.diagnostics) == 1, package.diagnostics
    return package.diagnostics[0]


def test_a_package_that_keeps_every_rule_is_strict() -> None:
    package = from_files({"SKILL.md": skill_md(), "references/a.md": b"a"}, "demo")
    assert (package.grade, package.diagnostics) == ("strict", ())
    assert (package.name, package.description) == ("demo", "Does a thing.")
    assert [entry.path for entry in package.manifest] == ["SKILL.md", "references/a.md"]


def test_unknown_fields_are_kept() -> None:
    text = b"---\nname: demo\ndescription: d\nlicense: MIT\nx-team: {lead: ada}\n---\n"
    package = from_files({"SKILL.md": text}, "demo")
    assert package.grade == "strict"
    assert package.frontmatter == {"name": "demo", "description": "d", "license": "MIT", "x-team": {"lead": "ada"}}


@pytest.mark.parametrize("name", ["a", "a1", "a-b-c", "x" * 64])
def test_names_of_the_specification_are_strict(name: str) -> None:
    assert from_files({"SKILL.md": skill_md(name)}, name).grade == "strict"


@pytest.mark.parametrize(
    "name", ["Demo", "-demo", "demo-", "de--mo", "de_mo", "dé", "de mo", "x" * 65, "12.5", "null", "[demo]", '""']
)
def test_another_name_is_lenient_and_goes_by_the_folder(name: str) -> None:
    package = from_files({"SKILL.md": b"---\ndescription: d\nname: " + name.encode() + b"\n---\n"}, "My Folder")
    assert (package.grade, package.name) == ("lenient", "my-folder")
    assert only(package).line == 3
    assert "my-folder" in only(package).hint


def test_a_missing_name_has_no_line() -> None:
    package = from_files({"SKILL.md": b"---\ndescription: d\n---\n"}, "demo")
    assert (package.grade, package.name, only(package).line) == ("lenient", "demo", None)


def test_a_name_that_differs_from_its_folder_is_lenient_and_the_skill_s() -> None:
    package = from_files({"SKILL.md": b"---\ndescription: d\nlicense: MIT\nname: demo\n---\n"}, "other")
    assert (package.grade, package.name, only(package).line) == ("lenient", "demo", 4)


def test_without_folder_and_name_it_cannot_be_served() -> None:
    package = from_files({"SKILL.md": b"---\ndescription: d\n---\n"})
    assert (package.grade, package.name) == ("quarantined", None)


@pytest.mark.parametrize("description", ["", "''", "'  '", "12", "[a]"])
def test_a_missing_description_is_lenient(description: str) -> None:
    package = from_files({"SKILL.md": skill_md(description=description)}, "demo")
    assert (package.grade, package.description) == ("lenient", "")
    assert "description" in only(package).message


@pytest.mark.parametrize(
    ("field", "reason", "hint"),
    [
        ("license: [MIT]", "license is a list, not text", "license: Apache-2.0"),
        ("allowed-tools:\n  - Read", "allowed-tools is a list, not text", "allowed-tools: Read Bash(git:*)"),
        ("allowed-tools:", "allowed-tools is empty, not text", "one line"),
        (f"compatibility: {'x' * 501}", "text of 1 to 500 characters", "in a sentence"),
        ('compatibility: ""', "text of 1 to 500 characters", "in a sentence"),
        ("metadata: 1.0", "metadata is a number, not a mapping", "lines below"),
        ("metadata:\n  version: 1.0", "maps 'version' to a number", "quotes"),
        ("metadata:\n  draft: true", "maps 'draft' to a truth value", "quotes"),
        ("metadata:\n  tags: [a, b]", "maps 'tags' to a list", "one line of text"),
        ("metadata:\n  needs: {a: b}", "maps 'needs' to a mapping", "one line of text"),
    ],
)
def test_an_optional_field_that_is_not_as_specified_is_lenient_with_line_and_hint(
    field: str, reason: str, hint: str
) -> None:
    package = from_files({"SKILL.md": f"---\nname: demo\ndescription: Does.\n{field}\n---\n".encode()}, "demo")
    assert package.grade == "lenient"
    found = only(package)
    assert reason in found.message
    assert hint in found.hint
    assert found.line == 4


def test_optional_fields_as_specified_are_strict() -> None:
    fields = (
        'license: Apache-2.0\ncompatibility: Needs git.\nallowed-tools: Read Bash(git:*)\nmetadata:\n  version: "1.0"\n'
    )
    package = from_files({"SKILL.md": f"---\nname: demo\ndescription: Does.\n{fields}own: [1]\n---\n".encode()}, "demo")
    assert (package.grade, package.diagnostics) == ("strict", ())


def test_empty_frontmatter_is_not_strict() -> None:
    package = from_files({"SKILL.md": b"---\n{}\n---\n"}, "demo")
    assert (package.grade, len(package.diagnostics)) == ("lenient", 2)


def test_a_description_may_be_1024_characters() -> None:
    longest = "é" * DESCRIPTION_LENGTH_MAX
    assert from_files({"SKILL.md": skill_md(description=longest)}, "demo").grade == "strict"
    longer = from_files({"SKILL.md": skill_md(description=longest + "x")}, "demo")
    assert (longer.grade, longer.description) == ("lenient", longest + "x")


@pytest.mark.parametrize(
    ("files", "reason", "path", "line"),
    [
        ({}, "no SKILL.md", "", None),
        ({"readme.md": b""}, "no SKILL.md", "", None),
        ({"skill.md": skill_md()}, "must be called SKILL.md", "skill.md", None),
        ({"SKILL.md": b"# no frontmatter"}, "does not start", "SKILL.md", 1),
        ({"SKILL.md": b"---\na: 1\nb: \xff\n---\n"}, "not UTF-8", "SKILL.md", 3),
        ({"SKILL.md": b"---\nname: demo\na: b: c\n---\n"}, "broken YAML", "SKILL.md", 3),
        ({"SKILL.md": skill_md(), "skill.MD": b""}, "differ only in case", "skill.MD", None),
        ({"SKILL.md": skill_md(), "a": b"", "a/b": b""}, "two files", "a", None),
        ({"SKILL.md": skill_md(), "e\u0301.md": b"", "\u00e9.md": b""}, "differ only", "\u00e9.md", None),
        ({"SKILL.md": skill_md(), "../up.md": b""}, "not a plain relative path", "../up.md", None),
        ({"SKILL.md": skill_md() + b"x" * SKILL_MD_BYTES_MAX}, "over 1048576 bytes", "SKILL.md", None),
    ],
    ids=range(11),
)
def test_what_cannot_be_served_is_quarantined_and_says_why(
    files: dict[str, bytes], reason: str, path: str, line: int | None
) -> None:
    package = from_files(files, "demo")
    assert (package.grade, package.name) == ("quarantined", "demo")
    diagnostic = only(package)
    assert reason in diagnostic.message
    assert (diagnostic.severity, diagnostic.path, diagnostic.line) == ("error", path, line)


def test_of_many_reasons_the_first_are_told_and_the_others_counted() -> None:
    package = from_files({"SKILL.md": skill_md(), **{f"a{at}.": b"" for at in range(8)}}, "demo")
    told = why_quarantined(package).split("; ")
    assert len(told) == 6
    assert told[0] == "a0.: this path is not allowed: not a name that Windows can hold"
    assert told[-1] == "and 3 more"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/../b",
        "..",
        "C:\\a",
        "C:a",
        "a\\b",
        "a:b",
        " a",
        "a ",
        "a/ b/c",
        "a\tb",
        "a\nb",
        "a\x00b",
        "a\u202eb",
        "a\u200bb",
        "a\udcffb",
        "x" * 256,
        "é" * 128,
        "/".join("x" * 17),
        "CON",
        "con.txt",
        "a/NUL.tar.gz/b",
        "lpt9",
        "COM\u00b9.md",
        "CONIN$",
        "...",
        "a..",
        "a./b",
        "what?",
        "a|b",
        "<a>",
        'a"b',
        "*.md",
    ],
)
def test_a_path_that_another_machine_would_read_differently_is_refused(path: str) -> None:
    assert path_problem(path)


@pytest.mark.parametrize(
    "path", ["a", "a b/c.d", "ä/日本.md", ".github/x", "x" * 255, "/".join("x" * 16), "icons/con-1.txt", ".a"]
)
def test_a_plain_path_is_allowed(path: str) -> None:
    assert path_problem(path) is None


def test_twins_are_found_whatever_makes_them() -> None:
    assert twins(["a/b", "A/B"]) == "A/B"
    assert twins(["stra\u00dfe", "STRASSE"]) == "STRASSE"
    assert twins(["e\u0301", "\u00e9"]) == "\u00e9"
    assert twins(["a", "A/b"]) == "a"
    assert twins(["a/b/c", "a/B"]) == "a/B"
    assert twins(["a/b", "a/c", "ab", "a.b"]) is None


def test_links_and_devices_are_quarantined_and_never_read(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "demo")
    (folder / "passwd").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    (folder / "nowhere").symlink_to("nothing")
    os.mkfifo(folder / "pipe")  # reading it would wait for ever
    package = read_folder(folder)
    assert package.grade == "quarantined"
    assert sorted(diagnostic.path for diagnostic in package.diagnostics) == ["etc", "nowhere", "passwd", "pipe"]
    assert list(package.files) == ["SKILL.md"]


def test_a_million_links_do_not_become_a_million_diagnostics(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "demo")
    for at in range(DIAGNOSTICS_MAX + 20):
        (folder / f"l{at}").symlink_to("x")
    package = read_folder(folder)
    assert (package.grade, len(package.diagnostics)) == ("quarantined", DIAGNOSTICS_MAX)


def test_a_file_name_that_is_not_utf_8_is_quarantined_and_can_be_stored(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "demo")
    Path(os.fsdecode(os.fsencode(folder) + b"/b\xff.md")).write_bytes(b"x")
    package = read_folder(folder)
    assert package.grade == "quarantined"
    assert only(package).path.encode() == b"b" + "\ufffd".encode() * 3 + b".md"
    assert list(package.files) == ["SKILL.md"]


@pytest.mark.parametrize(
    ("path", "mode", "shown"),
    [("a.md", 0, ["a.md"]), ("sub", 0, ["sub"]), ("sub", 0o444, ["sub/b.md"])],
    ids=["a file", "a folder", "a folder that may only be listed"],
)
def test_what_may_not_be_read_is_quarantined(path: str, mode: int, shown: list[str]) -> None:
    # In a process of its own: root reads everything, so it must become somebody else.
    script = "import os, sys, pathlib, services.skills.package as p, services.skills.yaml_values\n"
    script += "os.geteuid() or os.seteuid(65534)\n"
    script += (
        "f = p.read_folder(pathlib.Path(sys.argv[1])); print(f.grade, [d.path for d in f.diagnostics], sorted(f.files))"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = write_files(Path(name) / "demo", {"SKILL.md": skill_md(), "a.md": b"x", "sub/b.md": b"y"})
        for open_to_all in (Path(name), folder, folder / "sub"):
            open_to_all.chmod(0o755)
        (folder / path).chmod(mode)
        answer = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=30, check=False
        )
    rest = sorted({"SKILL.md", "a.md", "sub/b.md"} - {"sub/b.md" if path == "sub" else path})
    assert answer.stdout == f"quarantined {shown} {rest}\n", answer.stderr


def test_too_many_files_are_quarantined_without_their_content(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "demo", {f"f{at:03}.md": b"" for at in range(FILES_MAX - 1)})
    write_files(folder, {"SKILL.md": skill_md()})
    assert read_folder(folder).grade == "strict"
    write_files(folder, {"one-more.md": b""})
    package = read_folder(folder)
    assert (package.grade, package.name, package.files) == ("quarantined", "demo", {})
    assert f"over {FILES_MAX} files" in only(package).message


def test_too_many_bytes_are_quarantined_before_they_are_read(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "demo")
    with (folder / "big.bin").open("wb") as file:
        file.truncate(PACKAGE_BYTES_MAX)  # a hole: takes no disk
    assert read_folder(folder).grade == "quarantined"


def test_what_editors_and_systems_leave_behind_is_no_part_of_a_package(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "demo")
    before = read_folder(folder)
    write_files(
        folder,
        {
            ".git/config": b"x",
            "scripts/__pycache__/run.pyc": b"x",
            "node_modules/a/SKILL.md": skill_md("a"),
            ".DS_Store": b"x",
            ".SKILL.md.swp": b"x",
            "SKILL.md~": b"x",
            "#SKILL.md#": b"x",
            "SKILL.md.tmp": b"x",
            "4913": b"x",
        },
    )
    (folder / ".#SKILL.md").symlink_to("somebody@somewhere")  # emacs' lock
    after = read_folder(folder)
    assert (after.grade, after.digest, after.manifest) == ("strict", before.digest, before.manifest)
    assert find_roots(tmp_path) == [folder]


def test_a_nested_skill_is_its_own_and_part_of_its_parent(tmp_path: Path) -> None:
    parent = write_package(tmp_path, "group/parent")
    child = write_files(tmp_path / "group/parent/skills/child", {"SKILL.md": skill_md("child"), "a.md": b"a"})
    assert find_roots(tmp_path) == [parent, child]
    assert [entry.path for entry in read_folder(parent).manifest] == [
        "SKILL.md",
        "skills/child/SKILL.md",
        "skills/child/a.md",
    ]
    assert [entry.path for entry in read_folder(child).manifest] == ["SKILL.md", "a.md"]
    assert read_folder(child).name == "child"


def test_the_digest_is_the_documented_one() -> None:
    files = {
        "b/z.md": b"3",
        "SKILL.md": b"1",
        "b.md": b"2",
        "\u00e9.md": b"4",
        "a\U0001f600.md": b"5",
        "a\uffee.md": b"6",
    }
    lines = b"".join(
        path + b"\0" + hashlib.sha256(content).hexdigest().encode() + b"\n"
        for path, content in sorted((path.encode(), content) for path, content in files.items())
    )
    digest = digest_of(build_manifest(files))
    assert digest == f"sha256:{hashlib.sha256(lines).hexdigest()}"
    assert DIGEST.fullmatch(digest)
    assert digest_of(build_manifest({"SKILL.md": b"# hi\n"})) == (
        "sha256:56cbda9f699b26f91dbd4fa8e51390ae4b2b9e5ad28b67a5aa1c19e5b010c576"
    )


def test_the_digest_knows_content_alone(tmp_path: Path) -> None:
    one = write_files(tmp_path / "one" / "demo", {"SKILL.md": skill_md(), "a": b"1", "b/c": b"2"})
    other = write_files(tmp_path / "other" / "demo", {"b/c": b"2", "a": b"1", "SKILL.md": skill_md()})
    os.utime(other / "a", (1, 1))
    (other / "b" / "c").chmod(0o700)
    (other / "empty").mkdir()
    assert read_folder(one).digest == read_folder(other).digest
    assert read_folder(one).manifest == read_folder(other).manifest
    save = (other / "a").read_bytes()
    (other / "a").write_bytes(save + b"\n")
    assert read_folder(one).digest != read_folder(other).digest


def test_declared_tools_are_read() -> None:
    declared = tool(outputSchema={"type": "object"}, timeout_s=5, memory_mb=64, network=True)
    package = with_tools(tools_json(declared, tool("second", command=["sh", "scripts/run.py"])))
    assert (package.grade, [spec.name for spec in package.tools]) == ("strict", ["run", "second"])
    first = package.tools[0]
    assert (first.timeout_s, first.memory_mb, first.network) == (5, 64, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "a b"}, "names match"),
        ({"name": ""}, "names match"),
        ({"name": "x" * 61}, "names match"),
        ({"command": []}, "command is empty"),
        ({"command": ["python"]}, "not in the package"),
        ({"command": ["python", "scripts/other.py:main"]}, "not in the package"),
        ({"command": ["sh", "-c", "id"]}, "not in the package"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 3601}, "timeout_s"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"memory_mb": 16_385}, "memory_mb"),
        ({"inputSchema": {}}, "describe an object"),
        ({"inputSchema": {"type": "array"}}, "describe an object"),
        ({"outputSchema": {"type": "string"}}, "describe an object"),
        ({"inputSchema": {"type": "object", "properties": 5}}, "schema is not valid"),
        ({"inputSchema": {"type": "object", "properties": {"a": {"type": "text"}}}}, "schema is not valid"),
        ({"outputSchema": {"type": "object", "required": "a"}}, "schema is not valid"),
    ],
)
def test_a_bad_tool_is_left_out_and_the_others_stay(change: dict[str, object], reason: str) -> None:
    package = with_tools(tools_json(tool("good"), {**tool("bad"), **change}))
    assert (package.grade, [spec.name for spec in package.tools]) == ("lenient", ["good"])
    assert reason in only(package).message


def test_of_two_tools_with_one_name_the_first_is_kept() -> None:
    package = with_tools(tools_json(tool(timeout_s=1), tool(timeout_s=2)))
    assert [spec.timeout_s for spec in package.tools] == [1]
    assert "twice" in only(package).message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"tools": [{}]}',
        b'{"tools": "\xff"}',
        b'{"tools": [{"name": "\\ud800"}]}',
        b'{"tools": [{"timeout_s": 1e400}]}',
        b"[" * 60_000,
        b" " * (TOOLS_JSON_BYTES_MAX + 1),
    ],
    ids=range(9),
)
def test_a_broken_tools_file_costs_its_tools_only(data: bytes) -> None:
    package = with_tools(data)
    assert (package.grade, package.tools) == ("lenient", ())
    assert only(package).path == "tools.json"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=12), st.binary(max_size=40), max_size=4))
def test_any_files_give_a_package_that_can_be_kept(files: dict[str, bytes]) -> None:
    package = from_files({"SKILL.md": skill_md(), **files}, "demo")
    for entry in package.manifest:
        entry.path.encode()
    for diagnostic in package.diagnostics:
        diagnostic.path.encode()
        diagnostic.message.encode()
