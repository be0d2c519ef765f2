"""The nouns of Skillwire, as immutable values.

They are what the store keeps, what the change log carries and what the edges encode; none
of them knows how it is stored or sent. Times are RFC 3339 in UTC with milliseconds.
"""

from typing import Any, Literal

import msgspec

# What an owner and a skill may be called; a name is at most 64 characters long.
OWNER_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
SKILL_ID_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9]+(-[a-z0-9]+)*$"

Grade = Literal["strict", "lenient", "quarantined"]
# "removed" is what is left of a hard delete: no view, listing or look-up shows it, its numbers are never reused.
Status = Literal["draft", "active", "inactive", "quarantined", "removed"]
Visibility = Literal["public", "private"]
Severity = Literal["error", "warning", "info"]


class FileEntry(msgspec.Struct, frozen=True, gc=False):
    """One file of a package; `sha256` is 64 lower-case hex digits, `size` is bytes."""

    path: str
    sha256: str
    size: int


class Diagnostic(msgspec.Struct, frozen=True, gc=False):
    """What is odd about a package, where, and what to do about it; `line` counts from 1."""

    severity: Severity
    message: str
    path: str = ""
    line: int | None = None
    hint: str = ""


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as declared in `tools.json`.

    `command` is `["python", "scripts/x.py:function"]` for a function that stays loaded in a
    warm worker, or any other argv for a process per call that reads its arguments as JSON on
    stdin and prints its result.

    `kind` says how clients meet it: as a tool, as a prompt (its answer is text or messages, its
    arguments are texts), or as a resource at `<owner>://<uri>`, where `{name}` in `uri` stands for
    any text without a slash and becomes an argument. An `interactive` one is called with a second
    argument, through which it reports progress and asks the person or model on the other side;
    `requires` are the client capabilities it cannot do without. `task` says whether its call may
    outlive the request it came with: never, for clients that can ask for the result later, or for
    those alone.
    """

    name: str
    description: str
    input_schema: dict[str, Any] = msgspec.field(name="inputSchema")
    command: list[str]
    output_schema: dict[str, Any] | None = msgspec.field(name="outputSchema", default=None)
    timeout_s: float = 30.0
    memory_mb: int = 512
    network: bool = False
    kind: Literal["tool", "prompt", "resource"] = "tool"
    uri: str = ""
    mime_type: str = msgspec.field(name="mimeType", default="text/plain")
    interactive: bool = False
    requires: dict[str, Any] = msgspec.field(default_factory=dict)
    task: Literal["forbidden", "optional", "required"] = "forbidden"


class Version(msgspec.Struct, frozen=True):
    """An immutable version of a skill. `digest` is over the canonical manifest (`manifest.py`)."""

    version: int
    digest: str
    grade: Grade
    description: str
    frontmatter: dict[str, Any]
    manifest: tuple[FileEntry, ...]
    tools: tuple[ToolSpec, ...]
    diagnostics: tuple[Diagnostic, ...]
    created_at: str
    created_by: str
    source: str


class Skill(msgspec.Struct, frozen=True):
    """A skill and its active version.

    `active` is None while the skill has none: never published well (quarantined), or deleted.
    `seq` is the change that made this state. `pinned` are numbers of versions, ascending.
    `deleted_version` is the one that was active when the skill was deleted, None while it is not.
    """

    id: str
    owner: str
    name: str
    visibility: Visibility
    status: Status
    seq: int
    last_version: int
    active: Version | None
    pinned: tuple[int, ...] = ()
    deleted_version: int | None = None


class Draft(msgspec.Struct, frozen=True):
    """A version to be: what `publish` is asked to commit, its blobs already stored.

    `source_path` is the package's path in its watched folder (the ledger's key), None for an
    upload. `if_match` is the digest that must be active for the publish to go through.
    """

    owner: str
    name: str
    digest: str
    grade: Grade
    description: str
    frontmatter: dict[str, Any]
    manifest: tuple[FileEntry, ...]
    tools: tuple[ToolSpec, ...]
    diagnostics: tuple[Diagnostic, ...]
    created_by: str
    source: str
    source_path: str | None = None
    visibility: Visibility = "public"
    activate: bool = True
    if_match: str | None = None

    @property
    def skill_id(self) -> str:
        return f"{self.owner}/{self.name}"


class Published(msgspec.Struct, frozen=True, gc=False):
    """The answer to a write; `changed` is False when that digest was already active."""

    id: str
    version: int
    digest: str
    seq: int
    changed: bool = True


class LedgerEntry(msgspec.Struct, frozen=True):
    """What a watched folder last gave for one path, and what became of it.

    `digest` is empty for a package that could not be read at all.
    """

    source: str
    path: str
    digest: str
    skill_id: str | None
    diagnostics: tuple[Diagnostic, ...]


class Change(msgspec.Struct, frozen=True):
    """A row of the change log.

    `id` is `<epoch>-<seq>-<first 8 hex of the row's chained hash>`; `prev` is the id before it
    on the same stream (topic, owner, visibility), empty for the first. `dep` names what a cached record
    must depend on to be refused by this row. `data` is the JSON that subscribers see; `skill`
    is the state after the change, for the views that follow the log.
    """

    id: str
    prev: str
    seq: int
    topic: str
    kind: str
    dep: str
    owner: str
    visibility: Visibility
    at: str
    data: bytes
    skill: Skill | None = None


class Invocation(msgspec.Struct, frozen=True):
    """One call of anything, with the version and digest actually used."""

    id: str
    at: str
    caller: str
    session: str
    transport: str
    target: str
    skill_id: str
    version: int
    digest: str
    ok: bool
    code: str
    duration_ms: float
    arguments: str


class Usage(msgspec.Struct, frozen=True):
    """How often a version was called, how often that failed, and when its last call ended."""

    skill_id: str
    version: int
    calls: int
    failures: int
    last_at: str
