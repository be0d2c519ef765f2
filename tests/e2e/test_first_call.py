"""What the first call would wait for is there before it, where there is something to call, and nowhere else."""

from pathlib import Path

import pytest

from tests.support.listeners import eventually
from tests.support.packages import tool, tools_json
from tests.support.service import Service, running, wait_for_skills, write_skill

pytestmark = pytest.mark.anyio


def is_prepared(service: Service) -> bool:
    """What seals the states of interactive tools brings a library with it."""
    return "cryptography" in Path(f"/proc/{service.process.pid}/maps").read_text()


def write_tool(skills: Path) -> None:
    folder = write_skill(skills, "callable")
    (folder / "run.py").write_text("def run(arguments):\n    return arguments\n")
    (folder / "tools.json").write_bytes(tools_json(tool(command=["python", "run.py:run"])))


async def test_a_replica_prepares_for_calls_when_a_tool_comes_and_at_its_next_start(tmp_path: Path) -> None:
    skills, data = tmp_path / "skills", tmp_path / "data"
    write_skill(skills, "text")

    with running(skills, data, embedder="off") as service:
        wait_for_skills(service, 1)
        assert not is_prepared(service)
        write_tool(skills)
        wait_for_skills(service, 2)

        async def prepared() -> bool:
            return is_prepared(service)

        assert await eventually(prepared)

    with running(skills, data, embedder="off", watch="off") as again:

        async def prepared_again() -> bool:
            return is_prepared(again)

        assert await eventually(prepared_again)


async def test_a_replica_that_may_run_nothing_prepares_for_nothing(tmp_path: Path) -> None:
    write_tool(tmp_path / "skills")
    with running(tmp_path / "skills", tmp_path / "data", embedder="off", scripts_allowed_owners="[]") as service:
        wait_for_skills(service, 1)
        assert not is_prepared(service)
