"""The hot set: which keys were read most, kept in a file over a restart.

Only names are written, never values: those come from L2, and are validated like any others.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from services.cache.codec import Codec, Stored
from services.cache.memory import MemoryTier
from services.cache.space import Space
from services.ports import SecondTier

KEYS_MAX = 1000

log = structlog.get_logger(__name__)


class _HotKey(msgspec.Struct, frozen=True, array_like=True):
    space: int
    key: str
    reads: int


class _HotKeys(msgspec.Struct, frozen=True):
    """`keys`, most read first, name their space by its place in `spaces`."""

    spaces: list[Space]
    keys: list[_HotKey]


class HotSet:
    """The at most `KEYS_MAX` keys in the file at `path`; replicas that share it overwrite each other's."""

    def __init__(self, path: Path, codec: Codec) -> None:
        self._path = path
        self._codec = codec

    async def save(self, memory: MemoryTier) -> None:
        """Writes what was read at least once; failing to is logged, and no more."""
        read = [(cell.hits, key, cell.space) for key, cell in memory.cells() if cell.hits and cell.space.l2]
        read.sort(key=lambda each: -each[0])
        spaces = list({space: None for _, _, space in read})
        places = {space: place for place, space in enumerate(spaces)}
        keys = [_HotKey(places[space], key, hits) for hits, key, space in read[:KEYS_MAX]]
        try:
            await asyncio.to_thread(_write, self._path, msgspec.msgpack.encode(_HotKeys(spaces, keys)))
        except OSError as error:
            log.warning("the hot set could not be written", path=str(self._path), error=str(error))

    async def fetch(
        self, second: SecondTier, l2_key: Callable[[Space, str], str]
    ) -> list[tuple[Space, str, int, Stored]]:
        """(space, key, reads, record) of those that L2 still has."""
        hot = await asyncio.to_thread(_read, self._path)
        wanted = [(hot.spaces[each.space], each.key, each.reads) for each in hot.keys[:KEYS_MAX]]
        names = [l2_key(space, key) for space, key, _ in wanted]
        values = await asyncio.gather(*map(second.get, names))
        found = []
        for (space, key, reads), name, data in zip(wanted, names, values, strict=True):
            stored = self._codec.decode(data, name) if data is not None else None
            if stored is not None:
                found.append((space, key, reads, stored))
        return found


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _read(path: Path) -> _HotKeys:
    """Empty for no file, and for one that is none of ours."""
    try:
        hot = msgspec.msgpack.decode(path.read_bytes(), type=_HotKeys)
    except FileNotFoundError:
        return _HotKeys([], [])
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the hot set cannot be read", path=str(path), error=str(error))
        return _HotKeys([], [])
    return hot if all(0 <= each.space < len(hot.spaces) for each in hot.keys) else _HotKeys([], [])
