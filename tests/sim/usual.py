"""The usual algorithm, for comparison: L1 and L2, delete and publish after a write.

The steps of FusionCache and its kind, with a time to live longer than a run: a write deletes the
key here and in L2, then tells the other replicas to drop it; a read takes L1, L2, or loads and
fills both. Nothing is judged.
"""

import asyncio

from services.changes.levels import Level
from services.changes.log import DELTA_S
from tests.sim.world import LIST, Answer, Outside


class UsualReplica:
    def __init__(self, host: str, outside: Outside) -> None:
        self.host = host
        self._outside = outside
        self._memory: dict[str, bytes] = {}
        self._loads: dict[str, asyncio.Task[bytes]] = {}

    async def read(self, key: str, level: Level) -> Answer:  # noqa: ARG002  # it knows one level
        if (value := self._memory.get(key)) is not None:
            return Answer(value, "l1", False, DELTA_S)
        if (value := await self._outside.second.get(key)) is not None:
            self._memory[key] = value
            return Answer(value, "l2", False, DELTA_S)
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.create_task(self._load(key), name=f"load {key}")
            task.add_done_callback(lambda task: self._landed(key, task))
        return Answer(await asyncio.shield(task), "l3", False, DELTA_S)

    def _landed(self, key: str, task: asyncio.Task[bytes]) -> None:
        del self._loads[key]
        if not task.cancelled():
            task.exception()  # every reader may have given up

    async def wrote(self, key: str, seq: int) -> None:  # noqa: ARG002  # there are no versions
        for each in (key, LIST):
            self._memory.pop(each, None)
            await self._outside.second.delete(each)

    def hear(self, key: str, seq: int) -> None:  # noqa: ARG002  # nor here
        self._memory.pop(key, None)
        self._memory.pop(LIST, None)

    async def _load(self, key: str) -> bytes:
        value = await self._outside.database.load(key)
        self._memory[key] = value
        await self._outside.second.put(key, value, 60.0)
        return value


async def usual_replica(outside: Outside, host: str) -> UsualReplica:
    return UsualReplica(host, outside)
