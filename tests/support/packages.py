"""Skill packages as files and zips, and a catalog over a real store to publish them in."""

import asyncio
import io
import json
import struct
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from services.changes.log import ChangeFeed
from services.models import Skill, Version
from services.ports import ChangeSink
from services.skills.catalog import Catalog, served_file
from services.skills.scan import FolderScan
from services.skills.stamps import SETTLED_S, Stamps, look_at
from services.skills.tools import ToolView
from services.skills.view import CatalogView
from services.storage.blobs_local import LocalBlobs
from services.storage.sql import SqlStore

WAIT_S = 5.0
OWNER = "main"


def skill_md(name: str = "demo", description: str = "Does a thing.", body: str = "Do it.") -> bytes:
    return f"---\nname: {name}\ndescription: {description}\n---\n\n{body}\n".encode()


def tools_json(*tools: Mapping[str, Any]) -> bytes:
    return json.dumps({"tools": list(tools)}).encode()


def tool(name: str = "run", **changes: Any) -> dict[str, Any]:
    fields = {
        "name": name,
        "description": "Runs.",
        "inputSchema": {"type": "object"},
        "command": ["python", "scripts/run.py:main"],
    }
    return fields | changes


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def write_package(root: Path, name: str, body: str = "Do it.") -> Path:
    """A strict package in `root/<name>`."""
    return write_files(root / name, {"SKILL.md": skill_md(name.rsplit("/", 1)[-1], body=body)})


def save_by_rename(file: Path, content: bytes) -> None:
    """As most editors do: a temporary file beside it, then one rename."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, method)
    return buffer.getvalue()


def directory_entry(
    name: bytes, *, size: int = 0, packed: int = 0, crc: int = 0, method: int = 0, at: int = 0
) -> bytes:
    """One entry of a zip's central directory, as the writer of a hostile one would make it."""
    head = struct.pack("<4s4B4HL2L", b"PK\x01\x02", 20, 3, 20, 0, 0, method, 0, 0, crc, packed, size)
    return head + struct.pack("<5H2L", len(name), 0, 0, 0, 0, 0, at) + name


def directory_end(entries: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries & 0xFFFF, entries & 0xFFFF, size, offset, 0)


async def eventually(claim: Callable[[], object]) -> None:
    """Returns once the claim holds; it is looked at again every few milliseconds, for `WAIT_S`."""
    async with asyncio.timeout(WAIT_S):
        while not claim():  # noqa: ASYNC110  # files and other replicas have no event to wait for
            await asyncio.sleep(0.005)


def settled_look(root: Path) -> bytes:
    """The look of a package once it is old enough to tell: no program can make a file older than it is."""
    until = time.monotonic() + 2 * SETTLED_S
    while (look := look_at(root)) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return look


class Shelf(NamedTuple):
    """A catalog on a real store, its feed running."""

    store: SqlStore
    blobs: LocalBlobs
    feed: ChangeFeed
    view: CatalogView
    tools: ToolView
    catalog: Catalog

    def scan(self, root: Path, stamps: Path | None = None) -> FolderScan:
        kept = Stamps(stamps, str(root)) if stamps else None
        return FolderScan(root, OWNER, self.store, self.catalog, stamps=kept)

    def skill(self, name: str) -> Skill | None:
        return self.view.find(f"{OWNER}/{name}")

    def active(self, name: str) -> Version | None:
        found = self.skill(name)
        return found.active if found else None

    def number(self, name: str) -> int | None:
        """The active version's number, None while there is none."""
        version = self.active(name)
        return version.version if version else None

    async def text(self, name: str, path: str = "SKILL.md") -> str:
        """A file of the active version, empty when there is none."""
        version = self.active(name)
        return (await self.read(version, path)).decode() if version else ""

    async def read(self, version: Version, path: str) -> bytes:
        return await self.catalog.blob(served_file(version, path))

    async def reasons(self, source: str, path: str) -> list[str]:
        """The diagnostics of one path of a watched folder."""
        entry = (await self.store.ledger(source)).get(path)
        return [diagnostic.message for diagnostic in entry.diagnostics] if entry else []


@asynccontextmanager
async def open_shelf(
    data: Path, store: SqlStore | None = None, join: Callable[[Shelf], Sequence[ChangeSink]] = lambda _: ()
) -> AsyncIterator[Shelf]:
    """A replica's catalog; two on one `data` folder share the database. What `join` makes follows its feed."""
    async with AsyncExitStack() as stack:
        opened = store or await SqlStore.open(f"sqlite:///{data / 'skillwire.db'}")
        stack.push_async_callback(opened.close)
        blobs = LocalBlobs(data / "blobs")
        stack.push_async_callback(blobs.close)
        snapshot = await opened.snapshot()
        feed = ChangeFeed(opened, snapshot.position, interval_s=0.05)
        view = CatalogView(snapshot)
        tools = ToolView(view)
        shelf = Shelf(opened, blobs, feed, view, tools, Catalog(opened, blobs, view, feed))
        followers: tuple[ChangeSink, ...] = (view, tools, *join(shelf))
        for follower in followers:
            feed.follow(follower)
        feed.start()
        stack.push_async_callback(feed.close)
        yield shelf
