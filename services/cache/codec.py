"""A cached record on the wire: what L2 keeps and every replica can read.

First byte: the wire version. A record of another version is treated as absent, so replicas of
two releases can share one Redis.
"""

import msgspec

WIRE_VERSION = 1


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A value, the seq it was loaded at (read in or before the load's snapshot), and its deps.

    `epoch` is the change log's: a seq means nothing in another one.
    """

    epoch: str
    asof: int
    deps: tuple[str, ...]
    value: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    return bytes([WIRE_VERSION]) + _encoder.encode(record)


def decode(data: bytes) -> Record | None:
    """None for another wire version and for bytes that are no record."""
    if not data or data[0] != WIRE_VERSION:
        return None
    try:
        return _decoder.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
