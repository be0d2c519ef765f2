from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.execution import PackageFolders, Runner
from services.failures import Forbidden, Invalid, ServiceError, ToolFailed
from services.models import ToolSpec, Version
from services.skills.package import from_files
from services.storage.blobs_local import LocalBlobs
from tests.support.workers import bounded, running_pool

pytestmark = pytest.mark.anyio

_FILES = {
    "SKILL.md": b"---\nname: doubler\ndescription: Doubles.\n---\nbody\n",
    "scripts/double.py": b"def double(arguments):\n    return {'n': arguments['n'] * 2, **arguments.get('more', {})}\n",
    "tools.json": msgspec.json.encode(
        {
            "tools": [
                {
                    "name": "double",
                    "description": "Doubles.",
                    "inputSchema": {
                        "type": "object",
                        "properties": {"n": {"type": "integer"}},
                        "required": ["n"],
                    },
                    "outputSchema": {"type": "object", "maxProperties": 1},
                    "command": ["python", "scripts/double.py:double"],
                }
            ]
        }
    ),
}


class Bench:
    """A runner over real parts, and the one version it runs."""

    def __init__(self, runner: Runner, version: Version, root: Path) -> None:
        self.runner = runner
        self.version = version
        self.tool = version.tools[0]
        self.root = root

    async def run(self, arguments: Any, *, tool: ToolSpec | None = None, allowed: bool = True) -> Any:
        call = self.runner.run(tool or self.tool, self.version, arguments, tenant="a", allowed=allowed)
        return (await bounded(call)).result


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    package = from_files(_FILES, "doubler")
    blobs = LocalBlobs(tmp_path / "blobs")
    await blobs.put_many({entry.sha256: _FILES[entry.path] for entry in package.manifest})
    version = Version(
        version=1,
        digest=package.digest,
        grade=package.grade,
        description=package.description,
        frontmatter=package.frontmatter,
        manifest=package.manifest,
        tools=package.tools,
        diagnostics=package.diagnostics,
        created_at="2026-01-01T00:00:00.000Z",
        created_by="test",
        source="test",
    )
    async with running_pool() as pool:
        yield Bench(Runner(pool, PackageFolders(tmp_path / "packages", blobs)), version, tmp_path / "packages")
    await blobs.close()


async def test_a_tool_runs_from_the_versions_own_files(bench: Bench) -> None:
    assert await bench.run({"n": 21}) == {"n": 42}
    assert await bench.run({"n": 10**20}) == {"n": 2 * 10**20}
    folder = bench.root / bench.version.digest.removeprefix("sha256:")
    assert {path.name for path in folder.iterdir()} == {"SKILL.md", "scripts", "tools.json"}


async def test_scripts_of_an_owner_that_is_not_allowed_do_not_run(bench: Bench) -> None:
    with pytest.raises(Forbidden, match="SKILLWIRE_SCRIPTS_ALLOWED_OWNERS") as refused:
        await bench.run({"n": 1}, allowed=False)
    assert refused.value.code == "scripts_not_allowed"
    assert not bench.root.exists()


async def test_arguments_that_do_not_fit_reach_no_worker(bench: Bench) -> None:
    with pytest.raises(Invalid, match=r"\$\.n: 'x' is not of type 'integer'") as refused:
        await bench.run({"n": "x"})
    assert refused.value.code == "bad_arguments"
    assert not bench.root.exists()


async def test_a_result_that_does_not_fit_is_the_tools_failure(bench: Bench) -> None:
    with pytest.raises(ToolFailed) as failed:
        await bench.run({"n": 1, "more": {"x": 1}})
    assert failed.value.code == "bad_output"


@pytest.mark.parametrize("script", ["scripts/absent.py:double", "/bin/sh", "../double.py:double", "scripts"])
async def test_a_script_that_is_not_in_the_manifest_is_refused(bench: Bench, script: str) -> None:
    tool = msgspec.structs.replace(bench.tool, command=["python", script])
    with pytest.raises(ServiceError) as refused:
        await bench.run({"n": 1}, tool=tool)
    assert refused.value.code == "bad_command"
