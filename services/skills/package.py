"""A skill's files as given, judged: strict, lenient or quarantined.

*strict* keeps every rule of the Agent Skills specification; *lenient* breaks one that does no
harm and is served with diagnostics; *quarantined* cannot be served and says why. Reading never
raises for what a package holds, only for what the machine does (`OSError` on its root).
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from services.models import Diagnostic, Draft, FileEntry, Grade, ToolSpec, Visibility
from services.skills import frontmatter
from services.skills.kinds import kind_problem
from services.skills.manifest import build_manifest, digest_of
from services.skills.tool_schema import problem_of

FILES_MAX = 512
PACKAGE_BYTES_MAX = 16 * 1024 * 1024
SKILL_MD_BYTES_MAX = 1024 * 1024
PATH_LENGTH_MAX = 255
PATH_DEPTH_MAX = 16
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NAME_LENGTH_MAX = 64
DESCRIPTION_LENGTH_MAX = 1024
COMPATIBILITY_LENGTH_MAX = 500
# Checking a schema costs about 180 us a property: this much JSON is a second and a half at the very worst.
TOOLS_JSON_BYTES_MAX = 64 * 1024
DIAGNOSTICS_MAX = 100
REASONS_MAX = 5
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")

# What Windows takes for a device, with any ending, and the characters it allows in no name.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|con(in|out)\$)(\..*)?", re.IGNORECASE)
_NOT_ON_WINDOWS = frozenset('<>"|?*')

# What editors and operating systems leave behind; never part of a package.
_LITTER_DIRS = {".git", "__pycache__", ".svn", ".hg", "node_modules", ".idea", "__MACOSX"}
_LITTER_FILE = re.compile(
    r"\.DS_Store|Thumbs\.db|.*~|\..*\.sw[a-z]|#.*#|\.#.*|4913|.*\.(tmp|part|crdownload)"
    r"|.*___jb_(tmp|old)___|\.goutputstream-\w+"
)


class Package(msgspec.Struct, frozen=True):
    """Files and what they mean. `name` is None only when neither frontmatter nor folder gives one."""

    name: str | None
    files: dict[str, bytes]
    manifest: tuple[FileEntry, ...]
    digest: str
    grade: Grade
    description: str
    frontmatter: dict[str, Any]
    tools: tuple[ToolSpec, ...]
    diagnostics: tuple[Diagnostic, ...]

    def draft(
        self,
        *,
        owner: str,
        created_by: str,
        source: str,
        source_path: str | None = None,
        visibility: Visibility = "public",
        activate: bool = True,
        if_match: str | None = None,
    ) -> Draft:
        """What to commit. Only for a package with a name."""
        assert self.name is not None
        return Draft(
            owner=owner,
            name=self.name,
            digest=self.digest,
            grade=self.grade,
            description=self.description,
            frontmatter=self.frontmatter,
            manifest=self.manifest,
            tools=self.tools,
            diagnostics=self.diagnostics,
            created_by=created_by,
            source=source,
            source_path=source_path,
            visibility=visibility,
            activate=activate,
            if_match=if_match,
        )


class _Judge:
    """Collects diagnostics, the first `DIAGNOSTICS_MAX`; the worst of all decides the grade."""

    def __init__(self) -> None:
        self.found: list[Diagnostic] = []
        self.grade: Grade = "strict"

    def quarantine(self, message: str, path: str = "", line: int | None = None, hint: str = "") -> None:
        self.grade = "quarantined"
        self._keep(Diagnostic("error", message, path, line, hint))

    def warn(self, message: str, path: str = "", line: int | None = None, hint: str = "") -> None:
        if self.grade == "strict":
            self.grade = "lenient"
        self._keep(Diagnostic("warning", message, path, line, hint))

    def _keep(self, diagnostic: Diagnostic) -> None:
        # A folder may hold a million links; what is kept of it goes into the change log.
        if len(self.found) < DIAGNOSTICS_MAX:
            self.found.append(diagnostic)


def path_problem(path: str) -> str | None:
    """Why a path may not stand in a package, or None."""
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in path):
        return "holds control characters or is not UTF-8"
    parts = path.split("/")
    if not path or len(path.encode()) > PATH_LENGTH_MAX or len(parts) > PATH_DEPTH_MAX:
        return f"longer than {PATH_LENGTH_MAX} bytes or deeper than {PATH_DEPTH_MAX} folders"
    if "\\" in path or ":" in path or path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        return "not a plain relative path"
    if any(part != part.strip() for part in parts):
        return "a name starts or ends with white space"
    if not _NOT_ON_WINDOWS.isdisjoint(path) or any(_DEVICE.fullmatch(part) or part.endswith(".") for part in parts):
        return "not a name that Windows can hold"
    return None


def twins(paths: list[str]) -> str | None:
    """The first path that another one equals, or has as a folder, after NFC and case folding; or None."""
    folded = [unicodedata.normalize("NFC", path).casefold() for path in paths]
    taken = {name[:at] for name in folded for at, character in enumerate(name) if character == "/"}
    for path, name in zip(paths, folded, strict=True):
        if name in taken:
            return path
        taken.add(name)
    return None


def printable(path: str) -> str:
    """A path as it may be stored and shown: Linux names are bytes, which need not be UTF-8."""
    return path.encode(errors="surrogatepass").decode(errors="replace")


def walk(source: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` in path order, without folders that are litter; links to folders are named, not entered."""
    for folder, subfolders, names in os.walk(source, onerror=onerror):
        subfolders[:] = sorted(name for name in subfolders if name not in _LITTER_DIRS)
        yield folder, subfolders, sorted(names)


def in_words(diagnostic: Diagnostic) -> str:
    """A diagnostic as one line: where, what, and what to do about it."""
    place = diagnostic.path + (f":{diagnostic.line}" if diagnostic.line else "")
    hint = f" -- {diagnostic.hint}" if diagnostic.hint else ""
    return f"{place + ': ' if place else ''}{diagnostic.message}{hint}"


def why_quarantined(package: Package) -> str:
    """The first `REASONS_MAX` errors in words; `diagnostics` has all."""
    reasons = [in_words(found) for found in package.diagnostics if found.severity == "error"]
    more = [f"and {len(reasons) - REASONS_MAX} more"] if len(reasons) > REASONS_MAX else []
    return "; ".join([*reasons[:REASONS_MAX], *more])


def find_roots(source: Path) -> list[Path]:
    """Every folder at or under `source` that holds a SKILL.md (in any case), in path order."""
    roots: list[Path] = []
    for folder, _, names in walk(source):
        if any(name.lower() == "skill.md" for name in names):
            roots.append(Path(folder))
    return roots


def has_skill_md(folder: Path) -> bool:
    """False too for a folder that is not there."""
    try:
        return any(name.lower() == "skill.md" for name in os.listdir(folder))  # noqa: PTH208  # names are enough
    except OSError:
        return False


def is_litter(path: PurePath) -> bool:
    """True for what an editor or the system leaves behind."""
    return _LITTER_FILE.fullmatch(path.name) is not None or not _LITTER_DIRS.isdisjoint(path.parts)


def read_folder(root: Path) -> Package:
    """The package at `root`. Raises `OSError` when it is being moved away meanwhile, or is not there."""
    judge = _Judge()
    files: dict[str, bytes] = {}
    total = 0

    def note_unreadable(error: OSError) -> None:
        if not isinstance(error, PermissionError) or Path(error.filename) == root:
            raise error
        path = Path(error.filename).relative_to(root).as_posix()
        judge.quarantine("this folder may not be read by the service", printable(path), hint="chmod it")

    for folder, subfolders, names in walk(root, onerror=note_unreadable):
        for name in names:
            file = Path(folder) / name
            if is_litter(PurePath(name)):
                continue
            path = file.relative_to(root).as_posix()
            try:
                mode = file.lstat()
            except PermissionError:  # its folder may be listed, and no more
                judge.quarantine("this file may not be read by the service", printable(path), hint="chmod its folder")
                continue
            if not stat.S_ISREG(mode.st_mode):
                judge.quarantine("only regular files are allowed, no links or devices", printable(path))
                continue
            total += mode.st_size
            if len(files) >= FILES_MAX or total > PACKAGE_BYTES_MAX:
                judge.quarantine(f"over {FILES_MAX} files or {PACKAGE_BYTES_MAX} bytes", hint="split the skill")
                return _judged({}, root.name, judge)
            try:
                files[path] = file.read_bytes()
            except PermissionError:
                judge.quarantine("this file may not be read by the service", printable(path), hint="chmod it")
        for name in subfolders:
            link = Path(folder) / name
            if os.path.islink(link):  # noqa: PTH114  # False also where it may not be asked
                judge.quarantine("links to folders are not allowed", printable(link.relative_to(root).as_posix()))
    return _judged(files, root.name, judge)


def from_files(files: Mapping[str, bytes], folder: str = "") -> Package:
    """The package made of `files`; `folder` is the name it was found under, if any."""
    return _judged(dict(files), folder, _Judge())


def _judged(files: dict[str, bytes], folder: str, judge: _Judge) -> Package:
    for path in list(files):
        if problem := path_problem(path):
            judge.quarantine(f"this path is not allowed: {problem}", printable(path))
            if path != printable(path):
                del files[path]  # it has no bytes to sort by, hash or store
    if twin := twins(list(files)):
        judge.quarantine("two files differ only in case or Unicode form", twin)
    source, meta, skill_md = _read_skill_md(files, judge)
    name = _name_of(meta, frontmatter.line_of(source, "name"), folder, judge)
    description = _description_of(meta, source, judge)
    _judge_optional(meta or {}, source, judge)
    tools = _read_tools(files, judge)
    manifest = build_manifest(files)
    return Package(
        name=name,
        files=files,
        manifest=manifest,
        digest=digest_of(manifest),
        grade=judge.grade if skill_md else "quarantined",
        description=description,
        frontmatter=meta or {},
        tools=tools,
        diagnostics=tuple(judge.found),
    )


def _read_skill_md(files: dict[str, bytes], judge: _Judge) -> tuple[str, dict[str, Any] | None, str]:
    """The frontmatter's YAML, its fields (None when they cannot be read), and the path of the
    SKILL.md, empty when there is none."""
    path = "SKILL.md" if "SKILL.md" in files else next((p for p in files if p.lower() == "skill.md"), "")
    if not path:
        if not judge.found:
            judge.quarantine("there is no SKILL.md", hint="every package needs one at its root")
        return "", None, ""
    if path != "SKILL.md":
        judge.quarantine("the file must be called SKILL.md", path, hint="rename it: hosts look for that exact name")
    data = files[path]
    if len(data) > SKILL_MD_BYTES_MAX:
        judge.quarantine(f"SKILL.md is over {SKILL_MD_BYTES_MAX} bytes", path, hint="move parts into references/")
        return "", None, path
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        judge.quarantine("SKILL.md is not UTF-8", path, data[: error.start].count(b"\n") + 1)
        return "", None, path
    try:
        source = frontmatter.split(text)[0]
        return source, frontmatter.parse(source), path
    except frontmatter.FrontmatterError as error:
        judge.quarantine(error.message, path, error.line, error.hint)
        return "", None, path


def _name_of(meta: dict[str, Any] | None, line: int | None, folder: str, judge: _Judge) -> str | None:
    given = (meta or {}).get("name")
    if isinstance(given, str) and NAME.fullmatch(given) and len(given) <= NAME_LENGTH_MAX:
        if folder and given != folder:
            judge.warn(f"the name {given!r} differs from its folder {folder!r}", "SKILL.md", line, "rename one of them")
        return given
    slug = re.sub(r"[^a-z0-9]+", "-", (folder or str(given or "")).lower()).strip("-")[:NAME_LENGTH_MAX].strip("-")
    if meta is not None:
        judge.warn(
            "the name is missing or not 1 to 64 of a-z, 0-9 and single hyphens",
            "SKILL.md",
            line,
            f"write `name: {slug or 'my-skill'}`",
        )
    if not slug and meta is not None:  # else there was no frontmatter to give one, which was said
        judge.quarantine("neither the frontmatter nor the folder gives a usable name", "SKILL.md")
    return slug or None


def _description_of(meta: dict[str, Any] | None, source: str, judge: _Judge) -> str:
    given = (meta or {}).get("description")
    line = frontmatter.line_of(source, "description")
    if isinstance(given, str) and given.strip():
        if len(given) > DESCRIPTION_LENGTH_MAX:
            judge.warn(
                f"the description has {len(given)} characters; {DESCRIPTION_LENGTH_MAX} is the most",
                "SKILL.md",
                line,
                "shorten it",
            )
        return given.strip()
    if meta is not None:
        what = "there is no description" if given in (None, "") else "the description is not text"
        judge.warn(what, "SKILL.md", line, "say what the skill does and when to use it")
    return ""


def _judge_optional(meta: dict[str, Any], source: str, judge: _Judge) -> None:
    """What the specification says of the fields that need not be there; other fields are anybody's own."""

    def warn(field: str, message: str, hint: str) -> None:
        judge.warn(message, "SKILL.md", frontmatter.line_of(source, field), hint)

    for field in ("license", "allowed-tools"):
        if field in meta and not isinstance(meta[field], str):
            example = "Read Bash(git:*)" if field == "allowed-tools" else "Apache-2.0"
            warn(field, f"{field} is {_kind(meta[field])}, not text", f"write it as one line, as `{field}: {example}`")
    if "compatibility" in meta:
        given = meta["compatibility"]
        if not isinstance(given, str) or not 0 < len(given) <= COMPATIBILITY_LENGTH_MAX:
            warn(
                "compatibility",
                f"compatibility is not text of 1 to {COMPATIBILITY_LENGTH_MAX} characters",
                "name what the skill needs, in a sentence",
            )
    if "metadata" in meta:
        given = meta["metadata"]
        if not isinstance(given, dict):
            warn("metadata", f"metadata is {_kind(given)}, not a mapping", "write `key: \"value\"` lines below it")
        elif odd := [key for key, value in given.items() if not isinstance(value, str)]:
            key, value = odd[0][:64], given[odd[0]]
            hint = "write its value as one line of text" if isinstance(value, dict | list) else "put it in quotes"
            warn("metadata", f"metadata maps {key!r} to {_kind(value)}; its values are text", hint)


def _kind(value: Any) -> str:
    """A frontmatter value's type, as people call it."""
    match value:
        case None:
            return "empty"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _read_tools(files: dict[str, bytes], judge: _Judge) -> tuple[ToolSpec, ...]:
    """A tool that is merely wrong is left out; one that would harm whoever evaluates its schema keeps the
    package from being served (docs/decisions/0040-hostile-tools.md)."""
    data = files.get("tools.json")
    if data is None:
        return ()
    if len(data) > TOOLS_JSON_BYTES_MAX:
        judge.warn(f"tools.json is over {TOOLS_JSON_BYTES_MAX} bytes", "tools.json", hint="no tool of it is callable")
        return ()
    try:
        declared = msgspec.json.decode(data, type=_ToolsFile).tools
    except RecursionError:
        judge.quarantine("tools.json is nested too deeply", "tools.json")
        return ()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        judge.warn(f"tools.json is not valid: {error}", "tools.json", hint="no tool of this skill is callable")
        return ()
    tools: dict[str, ToolSpec] = {}
    for tool in declared:
        line = _line_of_tool(data, tool.name)
        schemas = [schema for schema in (tool.input_schema, tool.output_schema) if schema is not None]
        found = next(filter(None, map(problem_of, schemas)), None)
        if found is not None and found.harmful:
            judge.quarantine(f"the tool {tool.name[:80]!r} may not be declared: {found.message}", "tools.json", line)
        elif problem := _tool_problem(tool, files, tools) or (found.message if found else None):
            judge.warn(f"the tool {tool.name[:80]!r} is left out: {problem}", "tools.json", line)
        else:
            tools[tool.name] = tool
    return tuple(tools.values())


def _line_of_tool(data: bytes, name: str) -> int | None:
    """Where tools.json names the tool, as far as it is written plainly."""
    found = re.search(rb'"name"\s*:\s*"' + re.escape(name.encode(errors="replace")) + rb'"', data)
    return data.count(b"\n", 0, found.start()) + 1 if found else None


class _ToolsFile(msgspec.Struct):
    tools: list[ToolSpec]


def _tool_problem(tool: ToolSpec, files: Mapping[str, bytes], known: Mapping[str, ToolSpec]) -> str | None:
    if not _TOOL_NAME.fullmatch(tool.name):
        return "names match [A-Za-z0-9_-]{1,60}"
    if tool.name in known:
        return "the name stands twice"
    if not tool.command:
        return "the command is empty"
    if tool.command[0] in ("python", "sh") and (len(tool.command) < 2 or tool.command[1].split(":")[0] not in files):
        return "the script it names is not in the package"
    if not (0 < tool.timeout_s <= 3600 and 0 < tool.memory_mb <= 16_384):
        return "timeout_s is within 0 to 3600, memory_mb within 1 to 16384"
    for schema in (tool.input_schema, tool.output_schema):
        if schema is not None and schema.get("type") != "object":
            return "schemas describe an object"
    return kind_problem(tool)
