"""Looking for changed files where the operating system sends no events: network disks, some containers.

watchfiles can poll too, but compares modification times in whole seconds: of two saves within one
second it never sees the latter. This compares nanoseconds, size and inode. On a disk that itself
keeps whole seconds, a second save of the same size within one second still goes unseen.
"""

import asyncio
import os
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

from services.skills.package import walk

_Stamp = tuple[int, int, int]


async def poll(root: Path, interval_s: float) -> AsyncGenerator[list[Path], None]:
    """What was made, changed or removed since the look before, every `interval_s` at most.

    The first look finds everything changed: what happened between a scan and it is not missed.
    """
    seen: dict[str, _Stamp] = {}
    while True:
        now = await asyncio.to_thread(_look, root)
        changed = [Path(path) for path in sorted(seen.keys() | now.keys()) if seen.get(path) != now.get(path)]
        seen = now
        if changed:
            yield changed
        await asyncio.sleep(interval_s)


def _look(root: Path) -> dict[str, _Stamp]:
    found: dict[str, _Stamp] = {}
    for folder, subfolders, names in walk(root):
        for name in (*subfolders, *names):
            path = os.path.join(folder, name)  # noqa: PTH118  # ten thousand Path objects a look are too many
            try:
                status = os.lstat(path)
            except OSError:
                continue  # gone since the listing: the next look says so
            # A folder changes with what is in it, which has stamps of its own.
            is_folder = stat.S_ISDIR(status.st_mode)
            found[path] = (0 if is_folder else status.st_mtime_ns, 0 if is_folder else status.st_size, status.st_ino)
    return found
