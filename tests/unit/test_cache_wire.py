"""What is written to L2 and read from it, now and by other releases; the golden files are theirs.

A change of the form needs a new `WIRE_VERSION` and a further golden file; those that are here stay.
"""

import struct
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.cache import codec
from services.cache.codec import DICTIONARY_ID, VALUE_BYTES_MAX, WIRE_VERSION, Record
from tests.support.listed_log import EPOCH

GOLDEN = Path(__file__).parents[1] / "golden"
KEY = "detail:main/a"
NOW_MS = 1_800_000_000_000
LONG = b'{"id":"main/a","description":"Use this skill when the user asks to review code."}' * 20


def now_ms() -> int:
    return NOW_MS


def encode(record: Record, ttl_s: float = 60) -> bytes:
    return codec.encode(record, KEY, ttl_s, now_ms)


def decode(data: bytes) -> Record | None:
    stored = codec.decode(data, KEY, now_ms)
    return stored.record if stored is not None else None


SMALL = Record(EPOCH, 7, ("skill:a", "topic:skills"), b"value", load_s=0.25)
LARGE = Record(EPOCH, 7, ("skill:a",), LONG)
MISSING = Record(EPOCH, 7, ("skill:a",), b"not there", negative=True)


@pytest.mark.parametrize("record", [SMALL, LARGE, MISSING, Record(EPOCH, 2**63, (), bytes(VALUE_BYTES_MAX))])
def test_a_record_survives_the_wire(record: Record) -> None:
    assert decode(encode(record)) == record


def test_a_record_lives_for_the_rest_of_its_time_and_a_moment_whatever_the_clocks_say() -> None:
    data = encode(SMALL)
    for later_ms, left_s in ((0, 60.0), (45_000, 15.0), (61_000, 1.0), (10**9, 1.0)):
        stored = codec.decode(data, KEY, lambda later_ms=later_ms: NOW_MS + later_ms)  # type: ignore[misc]
        assert stored is not None
        assert stored.left_s == left_s


@pytest.mark.parametrize(("name", "record"), [("v2-small", SMALL), ("v2-dictionary-1", LARGE), ("v2-missing", MISSING)])
def test_what_released_versions_wrote_is_read(name: str, record: Record) -> None:
    assert decode((GOLDEN / f"{name}.bin").read_bytes()) == record


@pytest.mark.parametrize("name", ["v2-small", "v2-missing"])
def test_what_is_written_now_is_what_released_versions_read(name: str) -> None:
    """Without compression, whose output is the library's to choose."""
    assert encode({"v2-small": SMALL, "v2-missing": MISSING}[name]) == (GOLDEN / f"{name}.bin").read_bytes()


def test_records_of_the_first_wire_version_are_absent() -> None:
    data = (GOLDEN / "v1.bin").read_bytes()
    assert data[0] == 1
    assert decode(data) is None


def test_a_long_value_is_compressed_with_the_dictionary() -> None:
    data = encode(LARGE)
    assert len(data) < len(LONG) / 4
    assert struct.unpack_from(">BBH", data) == (WIRE_VERSION, 1, DICTIONARY_ID)
    assert encode(Record(EPOCH, 7, (), bytes(511)))[1] == 0, "a short one is not"


def signed(prefix: bytes, body: bytes) -> bytes:
    return prefix + zlib.crc32(body, zlib.crc32(prefix)).to_bytes(4, "big") + body


def with_value(value: bytes, flags: int = 1, dictionary: int = DICTIONARY_ID) -> bytes:
    """A record that is right in all but its compressed value."""
    whole = encode(Record(EPOCH, 7, (), value))
    return signed(struct.pack(">BBHQ", WIRE_VERSION, flags, dictionary, 7), whole[16:])


POISON = {
    "empty": b"",
    "another wire version": bytes([WIRE_VERSION + 1]) + encode(SMALL)[1:],
    "a dictionary that is not known": signed(
        struct.pack(">BBHQ", WIRE_VERSION, 1, DICTIONARY_ID + 1, 7), encode(LARGE)[16:]
    ),
    "no frame": with_value(b"x" * 100),
    "a bomb": with_value(zstandard.compress(bytes(VALUE_BYTES_MAX + 1))[:400]),
    "unknown flags": with_value(b"", flags=4),
    "cut": encode(SMALL)[:-1],
    "too long": encode(SMALL) + b"\x00",
    "one bit": encode(SMALL)[:-3] + bytes([encode(SMALL)[-3] ^ 1]) + encode(SMALL)[-2:],
    "another asof": encode(SMALL)[:4] + (10**6).to_bytes(8, "big") + encode(SMALL)[12:],
    "no msgpack": signed(encode(SMALL)[:12], b"\xc1"),
    "no utf-8": signed(encode(SMALL)[:12], b"\x96\xa1\xff\xc4\x00\x90\x00\x00\xc4\x00"),
    "nested without end": signed(encode(SMALL)[:12], b"\x91" * 100_000),
}


@pytest.mark.parametrize("data", POISON.values(), ids=list(POISON))
def test_what_is_no_record_is_absent(data: bytes) -> None:
    assert decode(data) is None


def test_a_record_of_another_key_is_absent() -> None:
    assert codec.decode(encode(SMALL), "detail:main/b") is None


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    decode(data)
    decode(signed(encode(SMALL)[:12], data))
