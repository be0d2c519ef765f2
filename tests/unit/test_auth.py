"""Keys from the Authorization header."""

import sys

import pytest

from gateway.auth import Authenticator
from services.settings import Settings

KEY = "k" * 32


@pytest.mark.parametrize("length", [8, 100_000])
def test_a_wrong_key_is_refused_however_long(length: int) -> None:
    authenticator = Authenticator(Settings(admin_key=KEY))
    assert authenticator.from_header(b"Bearer " + b"x" * length) is None
    found = authenticator.from_header(f"Bearer {KEY}".encode())
    assert found is not None
    assert found.id == "admin"


def test_what_strangers_send_is_not_kept() -> None:
    authenticator = Authenticator(Settings(admin_key=KEY))
    header = b"Bearer " + bytes(100_000)
    before = sys.getrefcount(header)
    authenticator.from_header(header)
    assert sys.getrefcount(header) == before
