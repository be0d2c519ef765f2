"""Fixtures of the tests of the catalog."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.packages import Shelf, open_shelf


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with open_shelf(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "skills"
    folder.mkdir()
    return folder
