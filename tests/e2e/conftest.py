"""One running service for the tests of a module, over a copy of the sample skills."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import Service, running, wait_for_skills

SAMPLES = Path(__file__).parents[2] / "skills"


@pytest.fixture(scope="module")
def skills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service") / "skills"
    shutil.copytree(SAMPLES, folder)
    return folder


@pytest.fixture(scope="module")
def service(skills: Path) -> Iterator[Service]:
    with running(skills, skills.parent / "data") as started:
        wait_for_skills(started, len(list(skills.glob("*/SKILL.md"))))
        yield started


@pytest.fixture(scope="module")
def replicas(skills: Path) -> Iterator[list[Service]]:
    """Two on one data folder."""
    data = skills.parent / "data"
    with running(skills, data) as one, running(skills, data) as other:
        for each in (one, other):
            wait_for_skills(each, len(list(skills.glob("*/SKILL.md"))))
        yield [one, other]
