"""What only calls need is imported before the first one, as soon as there is a tool that may be called.

It is a tenth of a second of the first caller's time and 8 MB, which a replica without tools does not spend.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module

from gateway.replica import Replica
from services.models import Change, Skill
from services.ports import CatalogSnapshot


class FirstCall:
    """A `ChangeSink`. `begin` it once the replica answers; `close` waits for what is under way."""

    def __init__(self, allowed_owners: Sequence[str]) -> None:
        self._allowed_owners = frozenset(allowed_owners)
        self._parts: tuple[Replica, Callable[[], Awaitable[None]]] | None = None
        self._preparing: asyncio.Task[None] | None = None

    def begin(self, replica: Replica, sdk_opened: Callable[[], Awaitable[None]]) -> None:
        """It comes after the SDK: two threads that import parts of one package may see half of it."""
        self._parts = replica, sdk_opened
        if replica.tools.listed(self._is_allowed):
            self._start()

    async def close(self) -> None:
        if self._preparing is not None:
            await self._preparing

    def apply(self, changes: Sequence[Change]) -> None:
        if any(change.skill is not None and self._has_tool(change.skill) for change in changes):
            self._start()

    def restart(self, snapshot: CatalogSnapshot) -> None:
        if any(self._has_tool(skill) for skill in snapshot.skills):
            self._start()

    def _is_allowed(self, skill: Skill) -> bool:
        return skill.owner in self._allowed_owners

    def _has_tool(self, skill: Skill) -> bool:
        declared = skill.active.tools if skill.active is not None else ()
        return self._is_allowed(skill) and any(spec.kind == "tool" for spec in declared)

    def _start(self) -> None:
        if self._preparing is None and self._parts is not None:
            self._preparing = asyncio.create_task(_prepare(*self._parts), name="prepare the first call")


async def _prepare(replica: Replica, sdk_opened: Callable[[], Awaitable[None]]) -> None:
    await sdk_opened()
    await asyncio.get_running_loop().run_in_executor(None, _import, replica)


def _import(replica: Replica) -> None:
    replica.calls.prepare()
    import_module("mcp.server.request_state")  # the seal of what a tool remembers
