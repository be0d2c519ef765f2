"""Runs a skill's tool: allowed, valid arguments, the version's own files, a warm worker, a valid result."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from services.execution.dialogue import Dialogue
from services.execution.jobs import Job, Outcome, parse_command
from services.execution.packages import PackageFolders
from services.execution.pool import WorkerPool
from services.failures import Forbidden, Invalid, ToolFailed
from services.models import ToolSpec, Version

if TYPE_CHECKING:
    from services.execution.schemas import ToolSchemas


class Runner:
    """Joins the pool and the folders, and closes neither."""

    def __init__(self, pool: WorkerPool, folders: PackageFolders) -> None:
        self._pool = pool
        self._folders = folders

    @cached_property
    def _schemas(self) -> "ToolSchemas":
        # jsonschema and what it brings are 2 MB and a twentieth of a second, for those who call tools.
        from services.execution.schemas import ToolSchemas  # noqa: PLC0415

        return ToolSchemas()

    def prepare(self) -> None:
        """Does what the first call would wait for; in any thread."""
        self._schemas  # noqa: B018  # made when it is looked at

    async def run(
        self,
        tool: ToolSpec,
        version: Version,
        arguments: dict[str, Any],
        *,
        tenant: str,
        allowed: bool,
        dialogue: Dialogue | None = None,
    ) -> Outcome:
        """`tenant` is whose turn in the line the call takes; `allowed` is the operator's word for
        the skill's owner; without a `dialogue` an interactive tool meets a client that can do nothing.
        Raises what `WorkerPool.call` and `PackageFolders.folder` raise."""
        if not allowed:
            raise Forbidden(
                "scripts of this skill's owner are not allowed to run; "
                "an operator allows them with SKILLWIRE_SCRIPTS_ALLOWED_OWNERS",
                code="scripts_not_allowed",
            )
        command = parse_command(tool.command)
        if all(entry.path != command.script for entry in version.manifest):
            raise Invalid(f"{command.script!r} is not a file of this version", code="bad_command")
        problem = self._schemas.problem(version.digest, tool.name, "in", tool.input_schema, arguments)
        if problem is not None:
            raise Invalid(f"the arguments do not fit the tool's schema: {problem}", code="bad_arguments")
        folder = await self._folders.folder(version.digest, version.manifest)
        heard = (dialogue or Dialogue()) if tool.interactive else None
        outcome = await self._pool.call(Job(folder, version.digest, tool, arguments, tenant, tool.timeout_s, heard))
        result = outcome.result
        if tool.interactive and isinstance(result, dict):
            result = result.get("structuredContent")
        if tool.output_schema is not None and (result is not None or not tool.interactive):
            problem = self._schemas.problem(version.digest, tool.name, "out", tool.output_schema, result)
            if problem is not None:
                raise ToolFailed(f"the result does not fit the tool's schema: {problem}", code="bad_output")
        return outcome
