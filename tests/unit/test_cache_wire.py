"""What is written to L2 and read from it, now and by other releases; the golden files are theirs.

A change of the form needs a new `WIRE_VERSION` and a further golden file; those that are here stay.
"""

import hashlib
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services import metrics
from services.cache.codec import DICTIONARY_ID, VALUE_BYTES_MAX, WIRE_VERSION, Codec, Record
from tests.support.listed_log import EPOCH

GOLDEN = Path(__file__).parents[1] / "golden"
NAME = f"{EPOCH}:detail:detail:main/a"
SECRET = bytes(range(32))
NOW_MS = 1_800_000_000_000
LONG = b'{"id":"main/a","description":"Use this skill when the user asks to review code."}' * 20
HEAD_BYTES = 28

CODEC = Codec(SECRET, lambda: NOW_MS)


def encode(record: Record, ttl_s: float = 60) -> bytes:
    return CODEC.encode(record, NAME, ttl_s)


def decode(data: bytes) -> Record | None:
    stored = CODEC.decode(data, NAME)
    return stored.record if stored is not None else None


def unsealed() -> float:
    return float(metrics.cache_l2_unsealed._value.get())


SMALL = Record(EPOCH, 7, ("skill:a", "topic:skills"), b"value", load_s=0.25)
LARGE = Record(EPOCH, 7, ("skill:a",), LONG)
MISSING = Record(EPOCH, 7, ("skill:a",), b"not there", negative=True)


@pytest.mark.parametrize("record", [SMALL, LARGE, MISSING, Record(EPOCH, 2**63, (), bytes(VALUE_BYTES_MAX))])
def test_a_record_survives_the_wire(record: Record) -> None:
    assert decode(encode(record)) == record


def test_a_record_lives_for_the_rest_of_its_time_and_a_moment_whatever_the_clocks_say() -> None:
    data = encode(SMALL)
    for later_ms, left_s in ((0, 60.0), (45_000, 15.0), (61_000, 1.0), (10**9, 1.0)):
        stored = Codec(SECRET, lambda later_ms=later_ms: NOW_MS + later_ms).decode(data, NAME)  # type: ignore[misc]
        assert stored is not None
        assert stored.left_s == left_s


@pytest.mark.parametrize(("name", "record"), [("v3-small", SMALL), ("v3-dictionary-1", LARGE), ("v3-missing", MISSING)])
def test_what_released_versions_wrote_is_read(name: str, record: Record) -> None:
    assert decode((GOLDEN / f"{name}.bin").read_bytes()) == record


@pytest.mark.parametrize("name", ["v3-small", "v3-missing"])
def test_what_is_written_now_is_what_released_versions_read(name: str) -> None:
    """Without compression, whose output is the library's to choose."""
    assert encode({"v3-small": SMALL, "v3-missing": MISSING}[name]) == (GOLDEN / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", ["v1", "v2-small", "v2-dictionary-1", "v2-missing"])
def test_records_from_before_the_seal_are_absent(name: str) -> None:
    data = (GOLDEN / f"{name}.bin").read_bytes()
    assert data[0] == int(name[1])
    assert decode(data) is None


def test_a_long_value_is_compressed_with_the_dictionary() -> None:
    data = encode(LARGE)
    assert len(data) < len(LONG) / 4
    assert struct.unpack_from(">BBH", data) == (WIRE_VERSION, 1, DICTIONARY_ID)
    assert encode(Record(EPOCH, 7, (), bytes(511)))[1] == 0, "a short one is not"


def sealed(prefix: bytes, body: bytes, name: str = NAME, key: bytes = SECRET) -> bytes:
    """What only whoever has the key can make: the form of the seal is written down here a second time."""
    signed = len(name).to_bytes(4, "big") + name.encode() + prefix + body
    return prefix + hashlib.blake2b(signed, digest_size=16, key=key, person=b"skillwire l2").digest() + body


def with_value(value: bytes, flags: int = 1, dictionary: int = DICTIONARY_ID) -> bytes:
    """A record that is right in all but its compressed value."""
    whole = encode(Record(EPOCH, 7, (), value))
    return sealed(struct.pack(">BBHQ", WIRE_VERSION, flags, dictionary, 7), whole[HEAD_BYTES:])


POISON = {
    "empty": b"",
    "another wire version": bytes([WIRE_VERSION + 1]) + encode(SMALL)[1:],
    "a dictionary that is not known": sealed(
        struct.pack(">BBHQ", WIRE_VERSION, 1, DICTIONARY_ID + 1, 7), encode(LARGE)[HEAD_BYTES:]
    ),
    "no frame": with_value(b"x" * 100),
    "a bomb": with_value(zstandard.compress(bytes(VALUE_BYTES_MAX + 1))[:400]),
    "unknown flags": with_value(b"", flags=4),
    "no msgpack": sealed(encode(SMALL)[:12], b"\xc1"),
    "no utf-8": sealed(encode(SMALL)[:12], b"\x95\xa1\xff\x90\x00\x00\xc4\x00"),
    "nested without end": sealed(encode(SMALL)[:12], b"\x91" * 100_000),
}


@pytest.mark.parametrize("data", POISON.values(), ids=list(POISON))
def test_what_is_no_record_is_absent(data: bytes) -> None:
    before = unsealed()
    assert decode(data) is None
    assert unsealed() == before, "refused for what it says, not for its seal"


FORGED = {
    "cut": encode(SMALL)[:-1],
    "too long": encode(SMALL) + b"\x00",
    "another asof": encode(SMALL)[:4] + (10**6).to_bytes(8, "big") + encode(SMALL)[12:],
    "no longer negative": encode(MISSING)[:1] + b"\x00" + encode(MISSING)[2:],
    "sealed with another key": Codec(b"sixteen bytes or more", lambda: NOW_MS).encode(SMALL, NAME, 60),
    "sealed for another name": CODEC.encode(SMALL, f"{NAME}b", 60),
    "sealed for another space": CODEC.encode(SMALL, NAME.replace(":detail:", ":versions:", 1), 60),
    "sealed with nothing": encode(SMALL)[:12] + bytes(16) + encode(SMALL)[HEAD_BYTES:],
    "the name's end as the record's beginning": sealed(encode(SMALL)[:12], encode(SMALL)[HEAD_BYTES:], NAME[:-1]),
}


@pytest.mark.parametrize("data", FORGED.values(), ids=list(FORGED))
def test_what_was_not_sealed_here_is_absent_and_counted(data: bytes) -> None:
    before = unsealed()
    assert decode(data) is None
    assert unsealed() == before + 1


def test_any_bit_that_is_turned_makes_a_record_absent() -> None:
    data = encode(SMALL)
    for place in range(len(data) * 8):
        turned = bytearray(data)
        turned[place // 8] ^= 1 << place % 8
        assert decode(bytes(turned)) is None, f"bit {place}"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    decode(data)
    decode(sealed(encode(SMALL)[:12], data))
