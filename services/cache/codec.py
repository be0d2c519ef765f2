"""A cached record on the wire: what L2 keeps and every replica can read.

    0   wire version, 2
    1   flags: 1 compressed, 2 "not found"
    2   id of the compression dictionary, 2 bytes, 0 for none
    4   asof, 8 bytes big-endian, where `fill.lua` reads it
    12  CRC-32 of all other bytes
    16  msgpack: epoch, hash of the key, deps, end of life, load time, value

Whatever is not exactly that is absent: another wire version (replicas of two releases may share
one Redis), a dictionary that this release does not have, a damaged record, another key's record.
Every released form has a golden file in `tests/golden`.
"""

import hashlib
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

WIRE_VERSION = 2
DICTIONARY_ID = 1
VALUE_BYTES_MAX = 64 * 1024
# Above it the dictionary pays: details of 416 real skills, 987 B on average, shrink 3.7 times with it
# and 2.3 times without (measured 2026-11).
_COMPRESSED_FROM_BYTES = 512
_ZSTD_LEVEL = 3
_COMPRESSED, _NEGATIVE = 1, 2

_PREFIX = struct.Struct(">BBHQI")
_SIGNED_BYTES = 12


class Record(msgspec.Struct, frozen=True):
    """A value, the seq it was loaded at (read in or before the load's snapshot), and its deps.

    `epoch` is the change log's: a seq means nothing in another one. A negative record says that
    there is no such thing; its value is the error. `load_s` is what the load took.
    """

    epoch: str
    asof: int
    deps: tuple[str, ...]
    value: bytes
    negative: bool = False
    load_s: float = 0.0


class Stored(NamedTuple):
    """A record from L2; `left_s` is how long it may still live."""

    record: Record
    left_s: float


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    epoch: str
    key_hash: bytes
    deps: tuple[str, ...]
    until_ms: int
    load_us: int
    value: bytes


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


_dictionary = zstandard.ZstdCompressionDict((Path(__file__).parent / "skills-1.zdict").read_bytes())
_compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, dict_data=_dictionary, write_checksum=False)
_decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


def encode(record: Record, key: str, ttl_s: float, now_ms: Callable[[], int] = wall_ms) -> bytes:
    flags, dictionary, value = _NEGATIVE * record.negative, 0, record.value
    if len(value) >= _COMPRESSED_FROM_BYTES:
        packed = _compressor.compress(value)
        if len(packed) < len(value):
            flags, dictionary, value = flags | _COMPRESSED, DICTIONARY_ID, packed
    until_ms = now_ms() + int(ttl_s * 1000)
    body = _encoder.encode(
        _Body(record.epoch, _hash(key), record.deps, until_ms, int(record.load_s * 1_000_000), value)
    )
    unsigned = _PREFIX.pack(WIRE_VERSION, flags, dictionary, record.asof, 0)[:_SIGNED_BYTES]
    return b"".join((unsigned, zlib.crc32(body, zlib.crc32(unsigned)).to_bytes(4, "big"), body))


def decode(data: bytes, key: str, now_ms: Callable[[], int] = wall_ms) -> Stored | None:
    """None for all that is no record of `key` in this form."""
    if len(data) < _PREFIX.size or data[0] != WIRE_VERSION:
        return None
    _, flags, dictionary, asof, crc = _PREFIX.unpack_from(data)
    body = data[_PREFIX.size :]
    if zlib.crc32(body, zlib.crc32(data[:_SIGNED_BYTES])) != crc or flags > _COMPRESSED | _NEGATIVE:
        return None
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if found.key_hash != _hash(key):
        return None
    value = _unpacked(found.value, dictionary) if flags & _COMPRESSED else found.value
    if value is None:
        return None
    record = Record(found.epoch, asof, found.deps, value, bool(flags & _NEGATIVE), found.load_us / 1_000_000)
    # By wall clocks, which may differ: Redis still had the record, so it is good for a moment at
    # least. No answer is wrong by it; whether the record is still true is the log's to say.
    return Stored(record, max(1.0, (found.until_ms - now_ms()) / 1000))


def _unpacked(value: bytes, dictionary: int) -> bytes | None:
    if dictionary != DICTIONARY_ID:
        return None
    try:
        if not 0 <= zstandard.frame_content_size(value) <= VALUE_BYTES_MAX:
            return None
        return _decompressor.decompress(value)
    except zstandard.ZstdError:
        return None


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()
