"""A cached record on the wire: what L2 keeps and every replica can read.

    0   wire version, 3
    1   flags: 1 compressed, 2 "not found"
    2   id of the compression dictionary, 2 bytes, 0 for none
    4   asof, 8 bytes big-endian, where `fill.lua` reads it
    12  seal, 16 bytes: keyed BLAKE2b of the record's name in L2 and of all its other bytes
    28  msgpack: epoch, deps, end of life, load time, value

Whatever is not exactly that is absent: another wire version (replicas of two releases may share
one Redis), a dictionary that this release does not have, a record that is damaged, stands under
another name, or was sealed with another key than this deployment's. Every released form has a
golden file in `tests/golden`.

The seal is what keeps whoever can write to Redis from making a record up. A true record from
before, put back, passes it and is the horizon's to refuse.
"""

import hashlib
import hmac
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import zstandard

from services import metrics

WIRE_VERSION = 3
DICTIONARY_ID = 1
VALUE_BYTES_MAX = 64 * 1024
# Above it the dictionary pays: details of 416 real skills, 987 B on average, shrink 3.7 times with it
# and 2.3 times without (measured 2026-11).
_COMPRESSED_FROM_BYTES = 512
_ZSTD_LEVEL = 3
_COMPRESSED, _NEGATIVE = 1, 2

_PREFIX = struct.Struct(">BBHQ")
_SEAL_BYTES = 16
_HEAD_BYTES = _PREFIX.size + _SEAL_BYTES


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


class Codec:
    """Writes and reads records of whoever has the same `key`, at least 16 secret bytes."""

    def __init__(self, key: bytes, now_ms: Callable[[], int] = wall_ms) -> None:
        # Copied for every record, which is cheaper than keying it anew.
        self._keyed = hashlib.blake2b(digest_size=_SEAL_BYTES, key=key, person=b"skillwire l2")
        self._now_ms = now_ms

    def encode(self, record: Record, name: str, ttl_s: float) -> bytes:
        """The record as it may stand in L2 under `name`, and nowhere else."""
        flags, dictionary, value = _NEGATIVE * record.negative, 0, record.value
        if len(value) >= _COMPRESSED_FROM_BYTES:
            packed = _compressor.compress(value)
            if len(packed) < len(value):
                flags, dictionary, value = flags | _COMPRESSED, DICTIONARY_ID, packed
        until_ms = self._now_ms() + int(ttl_s * 1000)
        body = _encoder.encode(_Body(record.epoch, record.deps, until_ms, int(record.load_s * 1_000_000), value))
        prefix = _PREFIX.pack(WIRE_VERSION, flags, dictionary, record.asof)
        return b"".join((prefix, self._seal(name, prefix, body), body))

    def decode(self, data: bytes, name: str) -> Stored | None:
        """None for all that is no record of `name` in this form, sealed with this key."""
        if len(data) < _HEAD_BYTES or data[0] != WIRE_VERSION:
            return None
        prefix, body = data[: _PREFIX.size], data[_HEAD_BYTES:]
        if not hmac.compare_digest(self._seal(name, prefix, body), data[_PREFIX.size : _HEAD_BYTES]):
            metrics.cache_l2_unsealed.inc()
            return None
        _, flags, dictionary, asof = _PREFIX.unpack(prefix)
        if flags > _COMPRESSED | _NEGATIVE:
            return None
        try:
            found = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        value = _unpacked(found.value, dictionary) if flags & _COMPRESSED else found.value
        if value is None:
            return None
        record = Record(found.epoch, asof, found.deps, value, bool(flags & _NEGATIVE), found.load_us / 1_000_000)
        # By wall clocks, which may differ: Redis still had the record, so it is good for a moment at
        # least. No answer is wrong by it; whether the record is still true is the log's to say.
        return Stored(record, max(1.0, (found.until_ms - self._now_ms()) / 1000))

    def _seal(self, name: str, prefix: bytes, body: bytes) -> bytes:
        keyed, named = self._keyed.copy(), name.encode()
        # With its length, so that no name's end can pass for a record's beginning.
        keyed.update(len(named).to_bytes(4, "big") + named + prefix)
        keyed.update(body)
        return keyed.digest()


def _unpacked(value: bytes, dictionary: int) -> bytes | None:
    if dictionary != DICTIONARY_ID:
        return None
    try:
        if not 0 <= zstandard.frame_content_size(value) <= VALUE_BYTES_MAX:
            return None
        return _decompressor.decompress(value)
    except zstandard.ZstdError:
        return None
