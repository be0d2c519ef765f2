"""Which records are let in: by the log (horizon) and by their form (codec)."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache import codec
from services.cache.codec import WIRE_VERSION, Record
from services.cache.horizon import Horizon
from tests.support.listed_log import EPOCH, ListedLog

FLOOR = 10


@pytest.fixture
def horizon() -> Horizon:
    """Follows from 10; since then `skill:a` changed at 11 and `skill:b` at 12."""
    log = ListedLog()
    log.commit(*(["skill:before"] * FLOOR), "skill:a", "skill:b")
    horizon = Horizon(EPOCH, FLOOR)
    horizon.apply(log.rows[FLOOR:])
    return horizon


@pytest.mark.parametrize(
    ("asof", "deps", "allowed"),
    [
        (10, ("skill:a",), False),
        (11, ("skill:a",), True),
        (11, ("skill:a", "skill:b"), False),
        (12, ("skill:a", "skill:b"), True),
        (10, ("skill:untouched",), True),
        (9, ("skill:untouched",), False),
        (9, (), True),
        (11, ("topic:skills",), False),
        (12, ("topic:skills",), True),
    ],
)
def test_a_record_is_good_while_nothing_it_depends_on_changed_after_it(
    horizon: Horizon, asof: int, deps: tuple[str, ...], allowed: bool
) -> None:
    assert horizon.allows(Record(EPOCH, asof, deps, b"")) is allowed


def test_a_record_of_another_epoch_is_refused_whatever_it_says(horizon: Horizon) -> None:
    assert not horizon.allows(Record("e1111111", 10**9, (), b""))


def test_a_record_survives_the_wire() -> None:
    record = Record(EPOCH, 7, ("skill:a", "topic:skills"), bytes(range(256)))
    assert codec.decode(codec.encode(record)) == record


def test_the_wire_form_is_the_one_that_other_releases_read() -> None:
    """Change `WIRE_VERSION` together with this; replicas of two releases share one Redis."""
    golden = b"\x01\x94\xa8e0000000\x07\x91\xa7skill:a\xc4\x05value"
    assert codec.encode(Record(EPOCH, 7, ("skill:a",), b"value")) == golden


def test_a_record_of_another_wire_version_is_absent() -> None:
    data = codec.encode(Record(EPOCH, 7, (), b"value"))
    assert codec.decode(bytes([WIRE_VERSION + 1]) + data[1:]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([WIRE_VERSION]),
        bytes([WIRE_VERSION]) + msgspec.msgpack.encode({"epoch": EPOCH}),
        bytes([WIRE_VERSION]) + msgspec.msgpack.encode([EPOCH, "7", [], b""]),
        bytes([WIRE_VERSION]) + b"\x94\xa1\xff\x07\x90\xc4\x00",
        bytes([WIRE_VERSION]) + b"\x95\xa1e\x07\x90\xc4\x00" + b"\x91" * 100_000 + b"\xc0",
        codec.encode(Record(EPOCH, 7, (), b"value"))[:-1],
        codec.encode(Record(EPOCH, 7, (), b"value")) + b"\x00",
    ],
    ids=["empty", "nothing", "map", "wrong type", "no utf-8", "nested without end", "cut", "too long"],
)
def test_bytes_that_are_no_record_are_absent(data: bytes) -> None:
    assert codec.decode(data) is None


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    codec.decode(bytes([WIRE_VERSION]) + data)
