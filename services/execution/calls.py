"""Calling a tool by its name: find it, run it, log it.

Success and failure alike leave an invocation with the version and digest actually used.
"""

from typing import Any

import msgspec

from services import metrics
from services.caller import Caller
from services.errors.firewall import ErrorFirewall
from services.execution.dialogue import Dialogue
from services.execution.runner import Runner
from services.failures import ToolFailed
from services.skills.tools import CallableTool, ToolView
from services.storage.invocations import InvocationLog


class CallAnswer(msgspec.Struct, frozen=True):
    """What a call gave, and exactly what ran."""

    result: Any
    logs: str
    skill: str
    version: int
    digest: str
    warm: bool
    worker_pid: int
    duration_ms: float


class ToolCalls:
    """`call` for every edge."""

    def __init__(
        self,
        tools: ToolView,
        runner: Runner,
        invocations: InvocationLog,
        firewall: ErrorFirewall,
        allowed_owners: frozenset[str],
    ) -> None:
        self._tools = tools
        self._runner = runner
        self._invocations = invocations
        self._firewall = firewall
        self._allowed_owners = allowed_owners

    def prepare(self) -> None:
        """Does what the first call would wait for; in any thread."""
        self._runner.prepare()

    async def call(self, name: str, arguments: dict[str, Any], caller: Caller) -> CallAnswer:
        """As `run` does, and raises `NotFound`, and `ToolFailed` for a tool that has to ask somebody."""
        answer = await self.run(self._tools.get(name, caller.sees), arguments, caller)
        if isinstance(answer.result, dict) and "inputRequests" in answer.result:
            raise ToolFailed(f"{name} has to ask its caller; call it over MCP", code="input_required", tool=name)
        return answer

    async def run(
        self, tool: CallableTool, arguments: dict[str, Any], caller: Caller, dialogue: Dialogue | None = None
    ) -> CallAnswer:
        """Raises `Invalid` (arguments), `Forbidden`, `Unavailable` (no sandbox), `Timeout`,
        `Exhausted`, `ToolFailed`. Cancelling it ends the worker."""
        outcome = "failed"
        try:
            with metrics.tool_call_seconds.time():
                async with (
                    self._invocations.logged(caller, tool.name, tool.skill, tool.version, arguments),
                    self._firewall.guarding(tool, arguments, caller.sees),
                ):
                    answer = await self._runner.run(
                        tool.spec,
                        tool.version,
                        arguments,
                        tenant=caller.id,
                        allowed=tool.skill.owner in self._allowed_owners,
                        dialogue=dialogue,
                    )
            outcome = "ok"
        finally:
            metrics.tool_calls.labels(outcome).inc()
        return CallAnswer(
            result=answer.result,
            logs=answer.logs,
            skill=tool.skill.id,
            version=tool.version.version,
            digest=tool.version.digest,
            warm=answer.warm,
            worker_pid=answer.worker_pid,
            duration_ms=round(answer.duration_ms, 3),
        )
